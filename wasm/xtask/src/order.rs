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
