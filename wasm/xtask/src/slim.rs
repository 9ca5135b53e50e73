//! What the compiler leaves in a module and nobody can tell from a smaller one.

use std::collections::{HashMap, HashSet};

use walrus::ir::{
    Const, Instr, InstrLocId, Value, Visitor, VisitorMut, dfs_in_order, dfs_pre_order_mut,
};
use walrus::{FunctionId, FunctionKind, LocalFunction, Module};

/// Cuts each call that does not come back down to its trap. What such a function does, which is to
/// write the message of a panic for nobody, can only be seen if it gets to an import: those that
/// throw to JavaScript stay.
pub(crate) fn cut_panics(module: &mut Module) {
    let silent = silent(module);
    let mut cut = Cut(silent);
    for (_, function) in module.funcs.iter_local_mut() {
        let entry = function.entry_block();
        dfs_pre_order_mut(&mut cut, function, entry);
    }
    walrus::passes::gc::run(module);
}

/// Has values of other crates print nothing for `{:?}`. Almost all of them are printed by panics
/// only, of which nothing is left, but tables in the module's data name the functions that do it.
/// Strings and our own values are printed as ever: they are in messages.
pub(crate) fn cut_debug(module: &mut Module) {
    // `Ok(())`.
    let done = Const {
        value: Value::I32(0),
    };
    cut_to(module, prints_foreign_value, done);
}

/// Leaves one instruction of the functions with such names, and nothing of what only they call.
pub(crate) fn cut_to(
    module: &mut Module,
    has_name: fn(&str) -> bool,
    left: impl Into<Instr> + Clone,
) {
    for function in module.funcs.iter_mut() {
        let is_cut = function.name.as_deref().is_some_and(has_name);
        if let FunctionKind::Local(function) = &mut function.kind
            && is_cut
        {
            let entry = function.entry_block();
            function.block_mut(entry).instrs = vec![(left.clone().into(), InstrLocId::default())];
        }
    }
    walrus::passes::gc::run(module);
}

/// Whether this is the name of a `Debug::fmt`, by either scheme of mangling.
fn prints_foreign_value(name: &str) -> bool {
    let Some((implementor, method)) = name.split_once(" as core") else {
        return false;
    };
    let is_in_messages = ["<str", "<char"].contains(&implementor)
        || ["<&", "<reconverge"]
            .iter()
            .any(|start| implementor.starts_with(start))
        || implementor.ends_with("::String");
    method.contains("::fmt::Debug>::fmt") && !is_in_messages
}

/// The functions that get to no import by the calls that they name.
fn silent(module: &Module) -> HashSet<FunctionId> {
    let mut callers: HashMap<FunctionId, Vec<FunctionId>> = HashMap::new();
    let (mut loud, mut silent) = (Vec::new(), HashSet::new());
    for function in module.funcs.iter() {
        match &function.kind {
            FunctionKind::Local(body) => {
                silent.insert(function.id());
                for callee in calls(body) {
                    callers.entry(callee).or_default().push(function.id());
                }
            }
            _ => loud.push(function.id()),
        }
    }
    while let Some(callee) = loud.pop() {
        for caller in callers.remove(&callee).unwrap_or_default() {
            if silent.remove(&caller) {
                loud.push(caller);
            }
        }
    }
    silent
}

fn calls(body: &LocalFunction) -> Vec<FunctionId> {
    #[derive(Default)]
    struct Calls(Vec<FunctionId>);
    impl Visitor<'_> for Calls {
        fn visit_function_id(&mut self, function: &FunctionId) {
            self.0.push(*function);
        }
    }
    let mut calls = Calls::default();
    dfs_in_order(&mut calls, body, body.entry_block());
    calls.0
}

struct Cut(HashSet<FunctionId>);

impl VisitorMut for Cut {
    fn start_instr_seq_mut(&mut self, seq: &mut walrus::ir::InstrSeq) {
        let instrs = &mut seq.instrs;
        // Nothing runs behind the first trap.
        let Some(trap) = instrs
            .iter()
            .position(|(instr, _)| matches!(instr, Instr::Unreachable(_)))
        else {
            return;
        };
        instrs.truncate(trap + 1);
        let mut keep = trap;
        if let Some((Instr::Call(call), _)) = instrs[..trap].last()
            && self.0.contains(&call.func)
        {
            keep -= 1;
        }
        while keep > 0 && unseen(&instrs[keep - 1].0) {
            keep -= 1;
        }
        instrs.drain(keep..trap);
    }
}

/// Whether nobody can tell that this did not run, as a trap follows, and an instance that trapped
/// is not used again.
fn unseen(instr: &Instr) -> bool {
    matches!(
        instr,
        Instr::LocalGet(_)
            | Instr::LocalSet(_)
            | Instr::LocalTee(_)
            | Instr::GlobalGet(_)
            | Instr::GlobalSet(_)
            | Instr::Const(_)
            | Instr::Binop(_)
            | Instr::Unop(_)
            | Instr::Select(_)
            | Instr::Drop(_)
            | Instr::Load(_)
            | Instr::Store(_)
    )
}

#[cfg(test)]
mod tests {
    use walrus::{FunctionBuilder, InstrSeqBuilder, ValType};

    use super::*;

    /// A module that imports `throw`, and has no functions of its own.
    fn module() -> Module {
        let mut module = Module::default();
        let signature = module.types.add(&[], &[]);
        let (throw, _) = module.add_import_func("env", "throw", signature);
        module.funcs.get_mut(throw).name = Some("throw".to_owned());
        module
    }

    fn function(module: &mut Module, name: &str, body: impl FnOnce(&mut InstrSeqBuilder<'_>)) {
        let mut builder = FunctionBuilder::new(&mut module.types, &[], &[]);
        body(&mut builder.name(name.to_owned()).func_body());
        builder.finish(vec![], &mut module.funcs);
    }

    fn exported(module: &mut Module, name: &str, body: impl FnOnce(&mut InstrSeqBuilder<'_>)) {
        function(module, name, body);
        let id = named(module, name);
        module.exports.add(name, id);
    }

    fn named(module: &Module, name: &str) -> FunctionId {
        module.funcs.by_name(name).expect("the test names it")
    }

    /// What a function does, in words.
    fn does(module: &Module, name: &str) -> String {
        let FunctionKind::Local(function) = &module.funcs.get(named(module, name)).kind else {
            panic!("{name} is imported");
        };
        let word = |(instr, _): &(Instr, InstrLocId)| match instr {
            Instr::Call(call) => module.funcs.get(call.func).name.clone().unwrap(),
            Instr::Const(constant) => format!("{}", constant.value),
            Instr::Drop(_) => "drop".to_owned(),
            Instr::Unreachable(_) => "trap".to_owned(),
            other => panic!("no function of these tests does {other:?}"),
        };
        let instrs = &function.block(function.entry_block()).instrs;
        instrs.iter().map(word).collect::<Vec<_>>().join(" ")
    }

    fn assert_valid(module: &mut Module) {
        wasmparser::validate(&module.emit_wasm()).expect("the module is valid");
    }

    /// With a panic that writes a message for nobody, and one that throws it, as `report` does.
    fn with_panics() -> Module {
        let mut module = module();
        let throw = named(&module, "throw");
        function(&mut module, "silent", |body| {
            body.i32_const(1).drop().unreachable();
        });
        function(&mut module, "report", |body| {
            body.call(throw);
        });
        let report = named(&module, "report");
        function(&mut module, "loud", |body| {
            body.call(report).unreachable();
        });
        module
    }

    #[test]
    fn a_panic_that_nobody_hears_is_its_trap() {
        let mut module = with_panics();
        let silent = named(&module, "silent");
        exported(&mut module, "indexes", |body| {
            body.i32_const(2).drop().call(silent).unreachable();
        });
        cut_panics(&mut module);
        assert_eq!(does(&module, "indexes"), "trap");
        assert_eq!(module.funcs.by_name("silent"), None);
        assert_valid(&mut module);
    }

    #[test]
    fn what_gets_to_an_import_stays() {
        let mut module = with_panics();
        let [throw, loud, silent] = ["throw", "loud", "silent"].map(|name| named(&module, name));
        exported(&mut module, "throws", |body| {
            body.i32_const(2).drop().call(loud).unreachable();
        });
        exported(&mut module, "tells", |body| {
            body.call(throw).call(silent).unreachable();
        });
        cut_panics(&mut module);
        assert_eq!(does(&module, "throws"), "2 drop loud trap");
        assert_eq!(does(&module, "loud"), "report trap");
        assert_eq!(does(&module, "tells"), "throw trap");
        assert_valid(&mut module);
    }

    #[test]
    fn a_call_that_comes_back_stays() {
        let mut module = with_panics();
        let silent = named(&module, "silent");
        exported(&mut module, "goes_on", |body| {
            body.call(silent).i32_const(3).drop();
        });
        exported(&mut module, "goes_on_first", |body| {
            body.call(silent).call(silent).unreachable();
        });
        cut_panics(&mut module);
        assert_eq!(does(&module, "goes_on"), "silent 3 drop");
        assert_eq!(does(&module, "goes_on_first"), "silent trap");
        assert_valid(&mut module);
    }

    #[test]
    fn nothing_runs_behind_a_trap() {
        let mut module = with_panics();
        let throw = named(&module, "throw");
        exported(&mut module, "ends", |body| {
            body.call(throw).unreachable().call(throw);
        });
        cut_panics(&mut module);
        assert_eq!(does(&module, "ends"), "throw trap");
        assert_valid(&mut module);
    }

    #[test]
    fn foreign_values_print_nothing() {
        let foreign = "<automerge::types::OpId as core::fmt::Debug>::fmt";
        let ours = "<reconverge::id::DocumentId as core::fmt::Debug>::fmt";
        let mut module = module();
        let throw = named(&module, "throw");
        for name in [foreign, ours] {
            let mut builder = FunctionBuilder::new(&mut module.types, &[], &[ValType::I32]);
            builder.name(name.to_owned());
            builder.func_body().call(throw).i32_const(1);
            let id = builder.finish(vec![], &mut module.funcs);
            module.exports.add(name, id);
        }
        cut_debug(&mut module);
        assert_eq!(does(&module, foreign), "0");
        assert_eq!(does(&module, ours), "throw 1");
        assert_valid(&mut module);
    }

    #[test]
    fn names_tell_which_values_are_foreign() {
        let foreign = [
            "<automerge::error::AutomergeError as core::fmt::Debug>::fmt::h0123456789abcdef",
            "<hexane[4f2a]::column::Column<u64> as core[8b1c]::fmt::Debug>::fmt",
            "<core::option::Option<&str> as core::fmt::Debug>::fmt",
            "<u32 as core::fmt::Debug>::fmt",
        ];
        for name in foreign {
            assert!(prints_foreign_value(name), "{name}");
        }
        let others = [
            "<str as core::fmt::Debug>::fmt",
            "<char as core[8b1c]::fmt::Debug>::fmt",
            "<&T as core::fmt::Debug>::fmt::h0123456789abcdef",
            "<alloc[77aa]::string::String as core[8b1c]::fmt::Debug>::fmt",
            "<reconverge[51d0]::id::DocumentId as core[8b1c]::fmt::Debug>::fmt",
            "<reconverge_wasm::client::Reported as core::fmt::Debug>::fmt",
            "<automerge::error::AutomergeError as core::fmt::Display>::fmt",
            "<automerge::ActorId as core::convert::From<u8>>::from",
            "automerge::automerge::Automerge::save",
        ];
        for name in others {
            assert!(!prints_foreign_value(name), "{name}");
        }
    }
}
