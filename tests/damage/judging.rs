//! What a file that cannot be opened must say, and which seeds are run.

use reconverge::storage::StorageError;

use crate::files::File;

pub(crate) fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap())
}

/// What a file cannot be opened for says what to do.
pub(crate) fn says_what_to_do(error: &StorageError) {
    let text = error.to_string();
    match error {
        StorageError::Unusable { .. } => {
            assert!(text.contains("backup") || text.contains("remove"), "{text}");
        }
        other => panic!("does not say what to do: {other:?}"),
    }
}

/// How many files go to the relay, and to the client.
const SAMPLE: u64 = 60;

/// The seeds of the sample, those of files of a relay or of a client.
pub(crate) fn sample(files: &[File], of: &str) -> Vec<u64> {
    if let Some(seed) = number("RECONVERGE_DAMAGE_SEED") {
        return vec![seed];
    }
    let fits = |seed: &u64| files[*seed as usize % files.len()].name.contains(of);
    (0_u64..).filter(fits).take(SAMPLE as usize).collect()
}
