//! What is in the module because a library chooses when it runs, though the choice is always the
//! same here: functions that nobody gets to, and the tables that only they read.

use std::collections::BTreeSet;

use walrus::ir::{Const, Load, Store, Unreachable, Value, Visitor, dfs_in_order};
use walrus::{ConstExpr, Data, DataKind, Module};

use crate::slim;

/// Shorter tables are not worth the search.
const TABLE_MIN_BYTES: usize = 256;

/// Whoever reads the row before the one it looks for reads from a place before the table.
const ROW_MAX_BYTES: u32 = 16;

/// Cuts the functions with such names down to a trap, so that it is noticed if somebody asks for them
/// after all, and empties the tables of which they were the only users. `table_bytes` says how many
/// bytes of data, from the first on, look like such a table: 0 if they do not.
///
/// Places alone do not tell where a table ends, nor whether it belongs to what begins before it. So
/// a table goes only if all of it has the content that is looked for, and if what was cut named its
/// start. Of what is left, nobody names a place in it, nor reads from one in the row before it; that
/// somebody has the address of what is there, such as a short text, is no reason to keep it. Only
/// code of the table's library can read it, which, inlined elsewhere, names its start as well.
pub(crate) fn cut(
    module: &mut Module,
    is_unused: fn(&str) -> bool,
    table_bytes: impl Fn(&[u8]) -> usize,
) {
    let before = Named::by(module);
    slim::cut_to(module, is_unused, Unreachable {});
    let before: BTreeSet<u32> = before.addresses.union(&before.accessed).copied().collect();
    let left = Named::by(module);
    let all: Vec<_> = module.data.iter().map(Data::id).collect();
    for data in all {
        let data = module.data.get_mut(data);
        let DataKind::Active {
            offset: ConstExpr::Value(Value::I32(start)),
            ..
        } = data.kind
        else {
            continue;
        };
        let start = start as u32;
        let mut passed = start;
        for &place in before.range(start..start + data.value.len() as u32) {
            // What is named inside a table does not begin one: it is of that table, kept or not.
            if place < passed {
                continue;
            }
            let at = (place - start) as usize;
            let bytes = table_bytes(&data.value[at..]);
            if bytes < TABLE_MIN_BYTES {
                continue;
            }
            passed = place + bytes as u32;
            let mut named = left.addresses.range(place..passed);
            let mut read = left
                .accessed
                .range(place.saturating_sub(ROW_MAX_BYTES)..passed);
            if named.next().is_none() && read.next().is_none() {
                data.value[at..at + bytes].fill(0);
            }
        }
    }
}

/// All that may be the place of something.
#[derive(Default)]
struct Named {
    /// Constants of functions, and words in data.
    addresses: BTreeSet<u32>,
    /// Those that functions load from or store to, at an index.
    accessed: BTreeSet<u32>,
}

impl Named {
    fn by(module: &Module) -> Self {
        let mut named = Self::default();
        for (_, function) in module.funcs.iter_local() {
            dfs_in_order(&mut named, function, function.entry_block());
        }
        for data in module.data.iter() {
            let words = data.value.chunks_exact(4);
            let words = words.map(|word| u32::from_le_bytes([word[0], word[1], word[2], word[3]]));
            named.addresses.extend(words);
        }
        named
    }
}

impl Visitor<'_> for Named {
    fn visit_const(&mut self, constant: &Const) {
        match constant.value {
            Value::I32(number) => {
                self.addresses.insert(number as u32);
            }
            // A place and a length may be written at once.
            Value::I64(number) => self
                .addresses
                .extend([number as u32, (number >> 32) as u32]),
            _ => {}
        }
    }

    fn visit_load(&mut self, load: &Load) {
        self.accessed.extend(u32::try_from(load.arg.offset));
    }

    fn visit_store(&mut self, store: &Store) {
        self.accessed.extend(u32::try_from(store.arg.offset));
    }
}

#[cfg(test)]
mod tests {
    use walrus::ir::{LoadKind, MemArg};
    use walrus::{FunctionBuilder, InstrSeqBuilder, LocalId, MemoryId, ValType};

    use super::*;

    /// Where the table is: 300 bytes of it, with a text before it and another behind it.
    const PLACE: u32 = 0x10_0000;
    const TEXT: &[u8; 8] = b"obj_ctr ";

    struct Built {
        module: Module,
        memory: MemoryId,
        index: LocalId,
    }

    impl Built {
        fn new() -> Self {
            let mut module = Module::default();
            let memory = module.memories.add_local(false, false, 32, None, None);
            let offset = PLACE as i32 - TEXT.len() as i32;
            let offset = ConstExpr::Value(Value::I32(offset));
            let kind = DataKind::Active { memory, offset };
            module
                .data
                .add(kind, [&TEXT[..], &[7; 300], &TEXT[..]].concat());
            let index = module.locals.add(ValType::I32);
            Self {
                module,
                memory,
                index,
            }
        }

        /// Adds an exported function that reads from this place on.
        fn reads(mut self, name: &str, place: u32) -> Self {
            let (memory, index) = (self.memory, self.index);
            let arg = MemArg {
                align: 4,
                offset: u64::from(place),
            };
            let kind = LoadKind::I32 { atomic: false };
            self.add(name, |body| {
                body.local_get(index).load(memory, kind, arg).drop();
            });
            self
        }

        /// Adds an exported function that has such a number.
        fn has(mut self, name: &str, number: Value) -> Self {
            self.add(name, |body| {
                body.const_(number).drop();
            });
            self
        }

        fn add(&mut self, name: &str, body: impl FnOnce(&mut InstrSeqBuilder<'_>)) {
            let mut builder = FunctionBuilder::new(&mut self.module.types, &[ValType::I32], &[]);
            body(&mut builder.name(name.to_owned()).func_body());
            let id = builder.finish(vec![self.index], &mut self.module.funcs);
            self.module.exports.add(name, id);
        }

        /// Whether the table goes with the functions that are called `unused`, and nothing else.
        fn goes(mut self) -> bool {
            let bytes = |data: &[u8]| data.iter().take_while(|&&byte| byte == 7).count();
            cut(&mut self.module, |name| name == "unused", bytes);
            wasmparser::validate(&self.module.emit_wasm()).expect("the module is valid");
            let data = self.module.data.iter().next().expect("it has some");
            let (before, table) = data.value.split_at(TEXT.len());
            let (table, behind) = table.split_at(300);
            assert_eq!((before, behind), (&TEXT[..], &TEXT[..]));
            let goes = table == [0; 300];
            assert!(goes || table == [7; 300]);
            goes
        }
    }

    #[test]
    fn a_table_goes_with_its_readers() {
        assert!(Built::new().reads("unused", PLACE).goes());
        let address = Value::I32(PLACE as i32);
        assert!(Built::new().has("unused", address).goes());
    }

    #[test]
    fn a_table_of_nobody_stays() {
        assert!(!Built::new().goes());
        // Its start is what tells where it is.
        assert!(!Built::new().reads("unused", PLACE - 8).goes());
    }

    #[test]
    fn a_table_that_others_read_stays() {
        for place in [PLACE - 16, PLACE - 8, PLACE, PLACE + 4, PLACE + 299] {
            let built = Built::new().reads("unused", PLACE).reads("used", place);
            assert!(!built.goes(), "{place:x}");
        }
    }

    #[test]
    fn a_table_whose_address_others_have_stays() {
        let place = i64::from(PLACE);
        for address in [
            Value::I32(PLACE as i32),
            Value::I32(PLACE as i32 + 8),
            Value::I64(place),
            Value::I64(300 << 32 | place),
            Value::I64(place << 32),
        ] {
            let built = Built::new().reads("unused", PLACE).has("used", address);
            assert!(!built.goes(), "{address:?}");
        }
        let mut built = Built::new().reads("unused", PLACE);
        let offset = ConstExpr::Value(Value::I32(PLACE as i32 + 0x1000));
        let memory = built.memory;
        let kind = DataKind::Active { memory, offset };
        built.module.data.add(kind, PLACE.to_le_bytes().to_vec());
        assert!(!built.goes());
    }

    #[test]
    fn what_is_inside_of_a_table_is_of_it() {
        // The rest looks like a table too, and is reached from the start that another one has.
        let built = Built::new().reads("unused", PLACE + 20);
        assert!(!built.reads("used", PLACE).goes());
    }

    #[test]
    fn texts_may_be_beside_a_table() {
        let before = Value::I32(PLACE as i32 - 8);
        let behind = Value::I32(PLACE as i32 + 300);
        let built = Built::new().reads("unused", PLACE).has("used", before);
        assert!(built.has("too", behind).goes());
    }
}
