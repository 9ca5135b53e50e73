//! The JavaScript between the module and the host, of which every page loads a copy.

use std::collections::HashSet;

use walrus::Module;

/// Drops the hashes from the names of imports, which nothing can compress: they were 433 of the
/// 11,872 bytes of the Worker's script in brotli. Gives the old names with the new ones.
pub(crate) fn shorten_imports(module: &mut Module) -> Vec<(String, String)> {
    let mut taken: HashSet<String> = module
        .imports
        .iter()
        .map(|import| import.name.clone())
        .collect();
    let mut renamed = Vec::new();
    for import in module.imports.iter_mut() {
        let Some(short) = without_hash(&import.name) else {
            continue;
        };
        let numbered = (2..).map(|number| format!("{short}_{number}"));
        let name = std::iter::once(short.to_owned())
            .chain(numbered)
            .find(|name| taken.insert(name.clone()))
            .expect("numbers do not end");
        renamed.push((std::mem::replace(&mut import.name, name.clone()), name));
    }
    renamed
}

fn without_hash(name: &str) -> Option<&str> {
    let (short, hash) = name.rsplit_once('_')?;
    let is_hash = hash.len() == 16 && hash.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then_some(short)
}

/// The script for the shortened names, without what is said again in each of its functions.
pub(crate) fn slim(script: &str, renamed: &[(String, String)]) -> String {
    let script = without_cleanups(&without_guards(script))
        // The same ones everywhere.
        .replace("malloc) {", "malloc = wasm.__wbindgen_malloc) {")
        .replace(
            "malloc, realloc) {",
            "malloc = wasm.__wbindgen_malloc, realloc = wasm.__wbindgen_realloc) {",
        )
        .replace(", wasm.__wbindgen_malloc)", ")")
        .replace(", wasm.__wbindgen_malloc, wasm.__wbindgen_realloc)", ")");
    let rename = |script: String, (from, to): &(String, String)| script.replace(from, to);
    renamed.iter().fold(script, rename)
}

/// Each method looks whether its object is of an instance that was renewed since: a host that
/// trapped asks nothing more of its own. Each function looks whether to renew the instance: nobody
/// schedules that. And nobody starts it in the way that is warned of.
fn without_guards(script: &str) -> String {
    let mut kept = String::with_capacity(script.len());
    let mut lines = script.lines();
    while let Some(line) = lines.next() {
        match line.trim() {
            "__wbg_call_guard();" => {}
            note if note.starts_with("Object.defineProperty(this, '__wbg_inst'") => {}
            warning if warning.starts_with("console.warn('using deprecated") => {}
            check if check.starts_with("if (this.__wbg_inst !== undefined") => {
                lines.by_ref().take(2).for_each(drop);
            }
            _ => kept.extend([line, "\n"]),
        }
    }
    kept
}

/// A function that takes several arguments into the module's memory takes them out again if one of
/// them cannot be: the types leave no such argument, and what an error would leave there is small.
fn without_cleanups(script: &str) -> String {
    let lines: Vec<_> = script.lines().collect();
    let mut is_kept = vec![true; lines.len()];
    for (catches, line) in lines.iter().enumerate() {
        let Some(indent) = line.strip_suffix("} catch (e) {") else {
            continue;
        };
        let is = |text| move |line: &&str| line.strip_prefix(indent) == Some(text);
        let before = lines[..catches].iter().rposition(is("try {"));
        let after = lines[catches..].iter().position(is("}"));
        let (tries, ends) = before.zip(after).expect("a block has both ends");
        let ends = catches + ends;
        let frees = |line: &&str| line.contains("wasm.__wbindgen_free(");
        let [cleanup @ .., last] = &lines[catches + 1..ends] else {
            continue;
        };
        if cleanup.iter().all(frees) && last.trim() == "throw e;" {
            is_kept[tries] = false;
            is_kept[catches..=ends].fill(false);
        }
    }
    let kept = lines.iter().zip(is_kept).filter(|(_, is_kept)| *is_kept);
    kept.flat_map(|(line, _)| [*line, "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use walrus::{Module, ValType};

    use super::*;

    #[test]
    fn imports_of_one_name_stay_apart() {
        let mut module = Module::default();
        let ty = module.types.add(&[ValType::I32], &[]);
        for name in [
            "__wbg_get_2080c49015e35254",
            "__wbg_get_d7176cfb76d71114",
            "__wbg_table",
        ] {
            module.add_import_func("./glue.js", name, ty);
        }
        let renamed = shorten_imports(&mut module);
        let names: Vec<_> = module
            .imports
            .iter()
            .map(|import| import.name.as_str())
            .collect();
        assert_eq!(names, ["__wbg_get", "__wbg_get_2", "__wbg_table"]);
        let script = "__wbg_get_d7176cfb76d71114: f, __wbg_get_2080c49015e35254: g\n";
        assert_eq!(slim(script, &renamed), "__wbg_get_2: f, __wbg_get: g\n");
    }

    #[test]
    fn functions_do_what_they_are_for_and_no_more() {
        let script = "
    tick(now) {
        if (this.__wbg_inst !== undefined && this.__wbg_inst !== __wbg_instance_id) {
            throw new Error('Invalid stale object from previous Wasm instance');
        }
        const ptr0 = passStringToWasm0(now, wasm.__wbindgen_malloc, wasm.__wbindgen_realloc);
        __wbg_call_guard();
        wasm.client_tick(this.__wbg_ptr, ptr0);
    }
function passStringToWasm0(arg, malloc, realloc) {
";
        let slimmed = "
    tick(now) {
        const ptr0 = passStringToWasm0(now);
        wasm.client_tick(this.__wbg_ptr, ptr0);
    }
function passStringToWasm0(arg, malloc = wasm.__wbindgen_malloc, realloc = wasm.__wbindgen_realloc) {
";
        assert_eq!(slim(script, &[]), slimmed);
    }

    #[test]
    fn what_catches_only_to_clean_up_is_dropped() {
        let script = "
    try {
        let ptr0;
        try {
            ptr0 = pass(document);
        } catch (e) {
            if (ptr0) { wasm.__wbindgen_free(ptr0); }
            throw e;
        }
        return wasm.client_cursor(ptr0);
    } finally {
        wasm.__wbindgen_free(deferred);
    }
    try {
        return f();
    } catch (e) {
        wasm.__wbindgen_exn_store(e);
    }
";
        let slimmed = "
    try {
        let ptr0;
            ptr0 = pass(document);
        return wasm.client_cursor(ptr0);
    } finally {
        wasm.__wbindgen_free(deferred);
    }
    try {
        return f();
    } catch (e) {
        wasm.__wbindgen_exn_store(e);
    }
";
        assert_eq!(slim(script, &[]), slimmed);
    }
}
