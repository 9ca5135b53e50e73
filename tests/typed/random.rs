//! Any value becomes any other.

use automerge::{Automerge, ROOT};
use reconverge::typed::{read, write};
use serde_json::json;

use crate::documents::{change, edit, of};

/// Any two values: the first one's document becomes the second one's, and what was the same is not
/// written. With `TYPED_SEED`, only that one.
#[test]
fn any_value_becomes_any_other() {
    let seeds = match std::env::var("TYPED_SEED") {
        Ok(seed) => {
            let seed = seed.parse().unwrap();
            seed..seed + 1
        }
        Err(_) => 1..1_500_u64,
    };
    for seed in seeds {
        let mut random = Random(reconverge_tests::Random::new(seed));
        let before = random.map(4);
        let mut document = of(&before);
        let mut now = before;
        for _ in 0..3 {
            let after = match random.below(3) {
                0 => random.map(4),
                _ => {
                    let mut after = now.clone();
                    random.edit(&mut after, 3);
                    after
                }
            };
            let written = edit(&mut document, |value: &mut serde_json::Value| {
                assert_eq!(*value, now, "seed {seed}");
                *value = after.clone();
            });
            assert_eq!(written == 0, now == after, "seed {seed}");
            let read: serde_json::Value = read(&document, &ROOT).unwrap();
            assert_eq!(read, after, "seed {seed}");
            let again = change(&mut document, |tx| write(tx, &ROOT, &after).unwrap());
            assert_eq!(again, 0, "seed {seed}");
            now = after;
        }
        let loaded = Automerge::load(&document.save()).unwrap();
        let read: serde_json::Value = read(&loaded, &ROOT).unwrap();
        assert_eq!(read, now, "seed {seed}");
    }
}

struct Random(reconverge_tests::Random);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0.below(end as u64) as usize
    }

    fn text(&mut self) -> String {
        let parts = [
            "a", "b", " ", "one ", "two ", "é", "😀", "e\u{301}", "\r\n", "🇩🇪",
        ];
        (0..self.below(8))
            .map(|_| parts[self.below(parts.len())])
            .collect()
    }

    fn map(&mut self, depth: usize) -> serde_json::Value {
        let keys = ["a", "b", "id", "é", ""];
        let entries = (0..self.below(5)).map(|_| {
            let key = keys[self.below(keys.len())];
            (key.to_owned(), self.value(depth - 1))
        });
        serde_json::Value::Object(entries.collect())
    }

    fn value(&mut self, depth: usize) -> serde_json::Value {
        match self.below(if depth == 0 { 5 } else { 9 }) {
            0 => json!(null),
            1 => json!(self.below(3) as i64 - 1),
            2 => json!(self.below(3) as f64 + 0.5),
            3 => json!(self.below(2) == 0),
            4 | 5 => json!(self.text()),
            6 => self.map(depth),
            _ => {
                let elements = (0..self.below(6)).map(|_| self.value(depth - 1));
                serde_json::Value::Array(elements.collect())
            }
        }
    }

    fn edit(&mut self, value: &mut serde_json::Value, depth: usize) {
        match value {
            serde_json::Value::Object(entries) => {
                let keys: Vec<String> = entries.keys().cloned().collect();
                match (self.below(4), keys.is_empty()) {
                    (0, false) => {
                        entries.remove(&keys[self.below(keys.len())]);
                    }
                    (1 | 2, false) => {
                        let key = &keys[self.below(keys.len())];
                        self.edit(&mut entries[key], depth.saturating_sub(1));
                    }
                    _ => {
                        entries.insert("new".into(), self.value(depth));
                    }
                }
            }
            serde_json::Value::Array(elements) => {
                for _ in 0..=self.below(3) {
                    let length = elements.len();
                    match (self.below(5), length) {
                        (0, 1..) => {
                            elements.remove(self.below(length));
                        }
                        (1, 1..) => {
                            let element = elements.remove(self.below(length));
                            elements.insert(self.below(length), element);
                        }
                        (2 | 3, 1..) => {
                            let at = self.below(length);
                            self.edit(&mut elements[at], depth.saturating_sub(1));
                        }
                        _ => elements.insert(self.below(length + 1), self.value(depth)),
                    }
                }
            }
            serde_json::Value::String(text) => {
                let mut characters: Vec<char> = text.chars().collect();
                let at = self.below(characters.len() + 1);
                characters.splice(at..at, self.text().chars());
                *text = characters.into_iter().collect();
            }
            other => *other = self.value(depth),
        }
    }
}
