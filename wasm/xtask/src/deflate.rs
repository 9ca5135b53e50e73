//! What is there for forms of deflating that nobody asks for.
//!
//! Automerge deflates at the usual level, and without a frame around it that has a checksum. The
//! library has functions for all levels and frames, which are chosen when it runs; so they are in the
//! module, with tables that nothing compresses: 9 kB.

use walrus::Module;

use crate::unused;

/// Those of other levels, and of checksums.
const UNUSED: [&str; 8] = [
    "::deflate_stored",
    "::deflate_quick",
    "::deflate_fast",
    "::deflate_slow",
    "::deflate_huff",
    "::deflate_rle",
    "::crc32_braid",
    "::adler32",
];

/// As many tables of checksums as there may be.
const TABLES_MAX: usize = 32;

pub(crate) fn cut(module: &mut Module) {
    let tables = tables();
    unused::cut(module, is_unused, |data| table_bytes(data, &tables));
}

fn is_unused(name: &str) -> bool {
    let path = name.split_once("::<").map_or(name, |(path, _)| path);
    path.starts_with("zlib_rs") && UNUSED.iter().any(|unused| path.ends_with(unused))
}

/// How many bytes from the first on are such tables, one after the other.
fn table_bytes(data: &[u8], tables: &[Vec<u8>]) -> usize {
    let bytes = tables.first().map_or(0, Vec::len);
    let found = data.chunks_exact(bytes);
    found
        .take_while(|chunk| tables.iter().any(|table| table == chunk))
        .count()
        * bytes
}

/// For CRC-32: what a byte comes to, with so many bytes behind it.
fn tables() -> Vec<Vec<u8>> {
    let step = |crc: u32, _| crc >> 1 ^ if crc & 1 == 1 { 0xedb8_8320 } else { 0 };
    let first: Vec<u32> = (0..256).map(|byte| (0..8).fold(byte, step)).collect();
    let behind = |table: &Vec<u32>| {
        let next = table
            .iter()
            .map(|crc| crc >> 8 ^ first[(crc & 0xff) as usize]);
        Some(next.collect())
    };
    let tables = std::iter::successors(Some(first.clone()), behind).take(TABLES_MAX);
    tables
        .map(|table| table.into_iter().flat_map(u32::to_le_bytes).collect())
        .collect()
}

#[cfg(test)]
mod tests {
    use walrus::ir::{LoadKind, MemArg, Value};
    use walrus::{ConstExpr, DataKind, FunctionBuilder, ValType};

    use super::*;

    const PLACE: u32 = 0x10_0000;

    /// A module with a table in its data, which a function of this name reads.
    fn module(reader: &str) -> Module {
        let mut module = Module::default();
        let memory = module.memories.add_local(false, false, 32, None, None);
        let offset = ConstExpr::Value(Value::I32(PLACE as i32 - 4));
        let kind = DataKind::Active { memory, offset };
        let text = [b"text".to_vec(), tables().swap_remove(3)].concat();
        module.data.add(kind, text);
        let mut builder = FunctionBuilder::new(&mut module.types, &[ValType::I32], &[ValType::I32]);
        builder.name(reader.to_owned());
        let byte = module.locals.add(ValType::I32);
        let arg = MemArg {
            align: 4,
            offset: u64::from(PLACE),
        };
        let kind = LoadKind::I32 { atomic: false };
        builder.func_body().local_get(byte).load(memory, kind, arg);
        let reader = builder.finish(vec![byte], &mut module.funcs);
        module.exports.add("reader", reader);
        module
    }

    fn data(module: &Module) -> Vec<u8> {
        module
            .data
            .iter()
            .next()
            .expect("it has some")
            .value
            .clone()
    }

    #[test]
    fn tables_of_unused_functions_are_empty() {
        let mut module = module("zlib_rs[1f]::crc32::braid::crc32_braid::<5: usize>");
        cut(&mut module);
        assert_eq!(data(&module), [&b"text"[..], &[0; 1024]].concat());
        wasmparser::validate(&module.emit_wasm()).expect("the module is valid");
    }

    #[test]
    fn a_table_that_somebody_else_reads_stays() {
        let mut module = module("crc32fast[1f]::update");
        let before = data(&module);
        cut(&mut module);
        assert_eq!(data(&module), before);
    }

    #[test]
    fn tables_are_those_of_the_checksum() {
        let tables = tables();
        let mut crc = u32::MAX;
        for byte in b"123456789" {
            let at = 4 * (crc as u8 ^ byte) as usize;
            let entry = tables[0][at..at + 4].try_into().expect("4 bytes");
            crc = crc >> 8 ^ u32::from_le_bytes(entry);
        }
        assert_eq!(!crc, 0xcbf4_3926);
        assert_eq!(tables[1][4..8], 0x191b_3141_u32.to_le_bytes());
    }

    #[test]
    fn names_tell_what_is_unused() {
        for (name, unused) in [
            ("zlib_rs[1f]::deflate::algorithm::slow::deflate_slow", true),
            ("zlib_rs::adler32::adler32", true),
            ("zlib_rs::crc32::braid::crc32_braid::<5: usize>", true),
            ("zlib_rs::deflate::algorithm::medium::deflate_medium", false),
            ("zlib_rs::adler32::adler32_fold_copy", false),
            ("other::adler32::adler32", false),
        ] {
            assert_eq!(is_unused(name), unused, "{name}");
        }
    }
}
