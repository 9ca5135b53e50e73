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
    for function in module.funcs.iter_mut() {
        let is_foreign = function.name.as_deref().is_some_and(prints_foreign_value);
        if let FunctionKind::Local(function) = &mut function.kind
            && is_foreign
        {
            let entry = function.entry_block();
            // `Ok(())`.
            let done = Const {
                value: Value::I32(0),
            };
            function.block_mut(entry).instrs = vec![(done.into(), InstrLocId::default())];
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
