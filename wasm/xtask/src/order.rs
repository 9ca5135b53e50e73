//! Which functions there are, and in which order. A compressor writes less where what it has just seen comes again, and
//! generic code leaves functions behind that hardly differ: each function comes next to the one
//! that is most like it.

use std::collections::HashMap;
use std::convert::Infallible;

use wasm_encoder::reencode::{self, Reencode, utils};
use wasm_encoder::{CodeSection, FunctionSection, Module};
use wasmparser::{CodeSectionReader, FunctionSectionReader, Parser, Payload, TypeRef};

/// Functions are compared by runs of so many bytes.
const RUN_BYTES: usize = 6;

/// So many runs stand for a function: those with the lowest hashes, the same for alike functions.
const RUNS_MAX: usize = 160;

/// A run in more functions than this tells nothing.
const COMMON: usize = 2000;

type Error = reencode::Error<Infallible>;

/// The module with its functions in another order.
pub(crate) fn similar_together(module: &[u8]) -> Result<Vec<u8>, Error> {
    let functions = Functions::read(module)?;
    let order = chain(&functions.bodies);
    let mut places = vec![0; order.len()];
    for (place, &function) in (0..).zip(&order) {
        places[function] = place;
    }
    functions.arrange(module, order, places)
}

/// The module with one of each set of functions that are the same byte for byte, as generic code is
/// for types of one shape.
pub(crate) fn same_once(module: &[u8]) -> Result<Vec<u8>, Error> {
    let mut module = module.to_vec();
    loop {
        let functions = Functions::read(&module)?;
        let (mut order, mut places) = (Vec::new(), Vec::new());
        let mut firsts = HashMap::new();
        for (function, same) in functions.types.iter().zip(&functions.bodies).enumerate() {
            let place = *firsts.entry(same).or_insert_with(|| {
                order.push(function);
                order.len() as u32 - 1
            });
            places.push(place);
        }
        if order.len() == places.len() {
            return Ok(module);
        }
        // Then functions are the same that call what was the same.
        module = functions.arrange(&module, order, places)?;
    }
}

/// The functions of a module that it does not import.
struct Functions<'a> {
    imported: u32,
    types: Vec<u32>,
    bodies: Vec<&'a [u8]>,
}

impl<'a> Functions<'a> {
    fn read(module: &'a [u8]) -> Result<Self, Error> {
        let (mut imported, mut types, mut bodies) = (0, Vec::new(), Vec::new());
        for payload in Parser::new(0).parse_all(module) {
            match payload? {
                Payload::ImportSection(imports) => {
                    for import in imports.into_imports() {
                        imported += u32::from(matches!(import?.ty, TypeRef::Func(_)));
                    }
                }
                Payload::FunctionSection(section) => {
                    types = section.into_iter().collect::<Result<_, _>>()?;
                }
                Payload::CodeSectionEntry(body) => bodies.push(body.as_bytes()),
                _ => {}
            }
        }
        Ok(Self {
            imported,
            types,
            bodies,
        })
    }

    fn arrange(
        &self,
        module: &[u8],
        order: Vec<usize>,
        places: Vec<u32>,
    ) -> Result<Vec<u8>, Error> {
        let mut arranged = Module::new();
        let mut arranging = Arranging {
            imported: self.imported,
            order,
            places,
        };
        arranging.parse_core_module(&mut arranged, Parser::new(0), module)?;
        Ok(arranged.finish())
    }
}

/// Starts at the largest function and goes on with the one left that shares most runs.
fn chain(bodies: &[&[u8]]) -> Vec<usize> {
    let runs: Vec<Vec<u32>> = bodies.iter().map(|body| runs(body)).collect();
    let mut with_run: HashMap<u32, Vec<usize>> = HashMap::new();
    for (function, runs) in runs.iter().enumerate() {
        for &run in runs {
            with_run.entry(run).or_default().push(function);
        }
    }
    let mut largest_last: Vec<usize> = (0..bodies.len()).collect();
    largest_last.sort_by_key(|&function| bodies[function].len());

    let mut order = Vec::with_capacity(bodies.len());
    let mut placed = vec![false; bodies.len()];
    let mut shared = vec![0; bodies.len()];
    while let Some(start) = largest_last.pop() {
        let mut next = (!placed[start]).then_some(start);
        while let Some(function) = next {
            placed[function] = true;
            order.push(function);
            let mut candidates = Vec::new();
            for run in &runs[function] {
                let others = &with_run[run];
                for &other in others.iter().filter(|_| others.len() < COMMON) {
                    if !placed[other] {
                        if shared[other] == 0 {
                            candidates.push(other);
                        }
                        shared[other] += 1;
                    }
                }
            }
            // The first of the best, as builds must not differ.
            next = candidates
                .iter()
                .copied()
                .min_by_key(|&other| (std::cmp::Reverse(shared[other]), other));
            for other in candidates {
                shared[other] = 0;
            }
        }
    }
    order
}

fn runs(body: &[u8]) -> Vec<u32> {
    let mut hashes: Vec<u32> = body.windows(RUN_BYTES).map(hash).collect();
    hashes.sort_unstable();
    hashes.dedup();
    hashes.truncate(RUNS_MAX);
    hashes
}

/// FNV-1a with a last mix, as the lowest hashes are picked.
fn hash(bytes: &[u8]) -> u32 {
    let hash = bytes.iter().fold(0x811c_9dc5_u32, |hash, &byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    (hash ^ hash >> 15).wrapping_mul(0x2c1b_3c6d)
}

struct Arranging {
    imported: u32,
    /// The functions to write.
    order: Vec<usize>,
    /// Which of them stands for each function of the module as it was.
    places: Vec<u32>,
}

impl Reencode for Arranging {
    type Error = Infallible;

    fn function_index(&mut self, index: u32) -> Result<u32, Error> {
        Ok(match index.checked_sub(self.imported) {
            Some(function) => self.imported + self.places[function as usize],
            None => index,
        })
    }

    fn parse_function_section(
        &mut self,
        functions: &mut FunctionSection,
        section: FunctionSectionReader<'_>,
    ) -> Result<(), Error> {
        let types = section.into_iter().collect::<Result<Vec<u32>, _>>()?;
        for &function in &self.order {
            functions.function(types[function]);
        }
        Ok(())
    }

    fn parse_code_section(
        &mut self,
        code: &mut CodeSection,
        section: CodeSectionReader<'_>,
    ) -> Result<(), Error> {
        let bodies = section.into_iter().collect::<Result<Vec<_>, _>>()?;
        for function in self.order.clone() {
            utils::parse_function_body(self, code, bodies[function].clone())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use wasm_encoder::{
        CodeSection, ConstExpr, ElementSection, Elements, EntityType, ExportKind, ExportSection,
        Function, FunctionSection, GlobalSection, GlobalType, ImportSection, Instruction, RefType,
        TableSection, TableType, TypeSection, ValType,
    };
    use wasmparser::{ElementItems, Operator};

    use super::*;

    const IMPORTED: u32 = 0;

    /// What a function of a test's module does: numbers are dropped, functions called.
    #[derive(Clone, Copy)]
    enum Step {
        Number(i32),
        Call(u32),
    }
    use Step::{Call, Number};

    /// A module of these functions, behind the imported one. Each is exported, an element of a
    /// table, and in a global.
    fn module(functions: &[Vec<Step>]) -> Vec<u8> {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        let mut imports = ImportSection::new();
        imports.import("env", "imported", EntityType::Function(0));
        let table_type = TableType {
            element_type: RefType::FUNCREF,
            table64: false,
            minimum: 1 + functions.len() as u64,
            maximum: None,
            shared: false,
        };
        let mut tables = TableSection::new();
        tables.table(table_type);
        let global_type = GlobalType {
            val_type: ValType::FUNCREF,
            mutable: false,
            shared: false,
        };
        let (mut declared, mut code) = (FunctionSection::new(), CodeSection::new());
        let (mut globals, mut exports) = (GlobalSection::new(), ExportSection::new());
        for (index, steps) in (1..).zip(functions) {
            declared.function(0);
            globals.global(global_type, &ConstExpr::ref_func(index));
            exports.export(&format!("export {index}"), ExportKind::Func, index);
            let mut body = Function::new([]);
            for step in steps {
                match *step {
                    Number(number) => body
                        .instruction(&Instruction::I32Const(number))
                        .instruction(&Instruction::Drop),
                    Call(function) => body.instruction(&Instruction::Call(function)),
                };
            }
            body.instruction(&Instruction::End);
            code.function(&body);
        }
        let all: Vec<u32> = (0..=functions.len() as u32).rev().collect();
        let mut elements = ElementSection::new();
        let from = ConstExpr::i32_const(0);
        elements.active(None, &from, Elements::Functions(all.into()));

        let mut module = Module::new();
        module.section(&types).section(&imports).section(&declared);
        module.section(&tables).section(&globals).section(&exports);
        module.section(&elements).section(&code);
        module.finish()
    }

    /// Each way to get to a function from outside, with all that happens then.
    fn behaviour(module: &[u8]) -> BTreeMap<String, String> {
        wasmparser::validate(module).expect("the module is valid");
        let functions = bodies(module);
        let at = |index: u32| happens(&functions, index);
        let mut behaviour = BTreeMap::new();
        for payload in Parser::new(0).parse_all(module) {
            match payload.unwrap() {
                Payload::ExportSection(exports) => {
                    for export in exports {
                        let export = export.unwrap();
                        behaviour.insert(export.name.to_owned(), at(export.index));
                    }
                }
                Payload::ElementSection(elements) => {
                    for element in elements {
                        let ElementItems::Functions(items) = element.unwrap().items else {
                            panic!("the test's elements are functions");
                        };
                        for (place, index) in items.into_iter().enumerate() {
                            behaviour.insert(format!("element {place}"), at(index.unwrap()));
                        }
                    }
                }
                Payload::GlobalSection(globals) => {
                    for (place, global) in globals.into_iter().enumerate() {
                        let start = global.unwrap().init_expr.get_operators_reader().read();
                        let Operator::RefFunc { function_index } = start.unwrap() else {
                            panic!("the test's globals are functions");
                        };
                        behaviour.insert(format!("global {place}"), at(function_index));
                    }
                }
                _ => {}
            }
        }
        behaviour
    }

    fn bodies(module: &[u8]) -> Vec<Vec<Step>> {
        let steps = |operator| match operator {
            Operator::I32Const { value } => Some(Number(value)),
            Operator::Call { function_index } => Some(Call(function_index)),
            _ => None,
        };
        let mut bodies = Vec::new();
        for payload in Parser::new(0).parse_all(module) {
            if let Payload::CodeSectionEntry(body) = payload.unwrap() {
                let operators = body.get_operators_reader().unwrap().into_iter();
                bodies.push(operators.map(Result::unwrap).filter_map(steps).collect());
            }
        }
        bodies
    }

    fn happens(functions: &[Vec<Step>], index: u32) -> String {
        if index == IMPORTED {
            return "imported".to_owned();
        }
        let step = |step: &Step| match *step {
            Number(number) => number.to_string(),
            Call(function) => format!("({})", happens(functions, function)),
        };
        let steps: Vec<_> = functions[index as usize - 1].iter().map(step).collect();
        steps.join(" ")
    }

    #[test]
    fn functions_that_are_the_same_are_one_to_all_who_refer_to_them() {
        let before = module(&[
            vec![Number(1)],
            vec![Number(2)],
            vec![Number(1)],
            vec![Call(IMPORTED), Call(1)],
            vec![Call(IMPORTED), Call(3)], // the same once 1 and 3 are
            vec![Call(4), Call(2)],
            vec![Call(5), Call(2)], // and then this one
            vec![Call(2), Call(5)],
        ]);
        let after = same_once(&before).unwrap();
        assert_eq!(behaviour(&after), behaviour(&before));
        assert_eq!(bodies(&after).len(), 5);
    }

    #[test]
    fn functions_of_one_body_and_other_types_stay_two() {
        let mut types = TypeSection::new();
        types.ty().function([], []);
        types.ty().function([ValType::I32], []);
        let (mut functions, mut code) = (FunctionSection::new(), CodeSection::new());
        for each in [0, 1] {
            functions.function(each);
            let mut body = Function::new([]);
            body.instruction(&Instruction::End);
            code.function(&body);
        }
        let mut module = Module::new();
        module.section(&types).section(&functions).section(&code);
        let module = module.finish();
        assert_eq!(same_once(&module).unwrap(), module);
    }

    #[test]
    fn functions_that_are_alike_come_together_and_do_the_same() {
        let numbers = |from: i32| (from..from + 40).map(Number);
        let ones = numbers(1000);
        let others = numbers(700_000);
        let before = module(&[
            ones.clone().collect(),
            others.clone().chain([Call(1)]).collect(),
            vec![Call(2), Number(5), Call(IMPORTED)],
            others
                .clone()
                .skip(30)
                .chain(ones.clone().take(10))
                .collect(),
            ones.chain([Call(3), Call(IMPORTED)]).collect(),
            others.chain([Call(4), Number(6)]).collect(),
        ]);
        let after = similar_together(&before).unwrap();
        assert_eq!(behaviour(&after), behaviour(&before));
        assert_eq!(similar_together(&before).unwrap(), after, "it differs");

        let firsts = bodies(&after).into_iter().map(|body| match body[0] {
            Number(number) => number,
            Call(_) => 0,
        });
        let firsts: Vec<i32> = firsts.collect();
        assert_eq!(firsts, [700_000, 700_000, 700_030, 1000, 1000, 0]);
    }
}
