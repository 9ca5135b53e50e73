//! The build step between cargo and npm: makes the JavaScript glue, its types and the final module
//! out of the WebAssembly that rustc wrote.
//!
//! ```sh
//! cargo run -p reconverge-xtask -- target/wasm32-unknown-unknown/wasm/reconverge_wasm.wasm wasm/dist/core
//! ```
//!
//! It is the command `wasm-bindgen --target web` as a crate of the workspace, so that `Cargo.lock`
//! keeps its version equal to that of the `wasm-bindgen` library, which the two require.

#![forbid(unsafe_code)]

mod deflate;
mod glue;
mod graphemes;
mod order;
mod slim;
mod unused;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use wasm_bindgen_cli_support::Bindgen;

const USAGE: &str = "usage: reconverge-xtask [--names] <module from rustc> <folder to write to>";

/// Whether the module keeps the names of its functions, which a trap's stack trace shows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Kept,
    Dropped,
}

fn main() -> ExitCode {
    let mut arguments: Vec<PathBuf> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let given = arguments.len();
    arguments.retain(|argument| argument != Path::new("--names"));
    let names = if arguments.len() == given {
        Names::Dropped
    } else {
        Names::Kept
    };
    let [module, folder] = arguments.as_slice() else {
        eprintln!("{USAGE}");
        return ExitCode::from(2);
    };
    match bind(module, folder, names) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("reconverge-xtask: {error:?}");
            ExitCode::FAILURE
        }
    }
}

/// Writes `reconverge.js`, `reconverge_bg.wasm` and their types to `folder`.
fn bind(module: &Path, folder: &Path, names: Names) -> Result<(), Box<dyn Error>> {
    let mut output = Bindgen::new()
        .input_path(module)
        .out_name("reconverge")
        .web(true)?
        .typescript(true)
        .remove_name_section(names == Names::Dropped)
        .remove_producers_section(true)
        // `__wbg_reset_state` makes a new instance in place of one that trapped.
        .reset_state_function(true)
        .generate_output()?;
    slim::cut_panics(output.wasm_mut());
    slim::cut_debug(output.wasm_mut());
    deflate::cut(output.wasm_mut());
    graphemes::cut(output.wasm_mut());
    let renamed = glue::shorten_imports(output.wasm_mut());
    output.emit(folder)?;
    let script = folder.join("reconverge.js");
    std::fs::write(
        &script,
        glue::slim(&std::fs::read_to_string(&script)?, &renamed),
    )?;
    if names == Names::Dropped {
        let file = folder.join("reconverge_bg.wasm");
        let module = order::same_once(&std::fs::read(&file)?)?;
        let module = order::similar_together(&module)?;
        std::fs::write(&file, module)?;
    }
    Ok(())
}
