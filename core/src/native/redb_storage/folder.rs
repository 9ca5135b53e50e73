//! A file's name is on disk only when its folder is.

use std::fs::Metadata;
use std::io;
use std::path::Path;

/// Puts the entries of the file's folder on disk, and the names of that folder and of those above
/// it, as far as they lie in the same file system: whoever runs us may have made them just before,
/// or the run before, which may have died or failed since. It costs little when there is nothing
/// to do.
///
/// # Errors
/// When the file is not there, or what `sync` says; but folders above the file's own that cannot
/// be read were not made by us.
pub(super) fn sync_all(file: &Path, sync: impl Fn(&Path) -> io::Result<()>) -> io::Result<()> {
    let file = file.canonicalize()?;
    let mut folders = file.ancestors().skip(1);
    let Some(own) = folders.next() else {
        return Ok(());
    };
    sync(own)?;
    let device = device(&own.metadata()?);
    for folder in folders {
        if !folder
            .metadata()
            .is_ok_and(|above| self::device(&above) == device)
        {
            break;
        }
        match sync(folder) {
            Err(error)
                if !matches!(
                    error.kind(),
                    io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
                ) =>
            {
                return Err(error);
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(unix)]
fn device(folder: &Metadata) -> u64 {
    std::os::unix::fs::MetadataExt::dev(folder)
}

#[cfg(not(unix))]
fn device(_: &Metadata) -> u64 {
    0
}

/// Puts a folder's entries on disk, where the system has such a thing.
pub(super) fn sync(folder: &Path) -> io::Result<()> {
    if !cfg!(unix) {
        return Ok(());
    }
    let synced = std::fs::File::open(folder)?.sync_all();
    match synced {
        // Some file systems know no such thing for folders, and need none.
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported
            ) =>
        {
            Ok(())
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn the_folder_and_those_above_it_are_synced_its_own_first() {
        let made = std::env::temp_dir().join(format!("reconverge-folder-{}", std::process::id()));
        let own = made.join("a/b");
        std::fs::create_dir_all(&own).unwrap();
        let file = own.join("file");
        std::fs::write(&file, "x").unwrap();
        let synced = RefCell::new(Vec::new());
        sync_all(&file, |folder| {
            synced.borrow_mut().push(folder.to_owned());
            sync(folder)
        })
        .unwrap();
        let own = own.canonicalize().unwrap();
        let expected: Vec<_> = own.ancestors().take(3).map(Path::to_owned).collect();
        assert_eq!(synced.borrow()[..3], expected);
        std::fs::remove_dir_all(made).unwrap();
    }
}
