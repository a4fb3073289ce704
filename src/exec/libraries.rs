//! Libraries of functions, as FUNCTION and files bring them.

use std::rc::Rc;
use std::sync::Arc;

use super::script::busy_fail;
use crate::command::{CommandError, Result};
use crate::script::{Engine, Libraries, Store, engine as interpreter, shebang};

/// The interpreter of this thread; an error while it runs a script.
pub fn engine(store: &Store) -> Result<Rc<Engine>> {
    let engine =
        interpreter().ok_or(CommandError::text("ERR the interpreter for scripts cannot be started"))?;
    // Asked for meanwhile, on the thread of a script that takes long.
    if engine.is_running() { Err(busy_fail(store)) } else { Ok(engine) }
}

/// Loads a library, and adds it to `libraries`.
pub fn add(store: &Store, libraries: &mut Libraries, code: &[u8], replace: bool) -> Result<String> {
    let (name, body_at) = shebang::of_library(code)?;
    if !replace && libraries.get(&name).is_some() {
        return Err(CommandError::owned(format!("ERR Library '{name}' already exists")));
    }
    let engine = engine(store)?;
    let library = engine.load(store, name.clone(), code, body_at)?;
    let number = library.number;
    libraries.add(Arc::new(library), replace).map_err(|text| {
        engine.forget(number);
        CommandError::owned(format!("ERR {text}"))
    })?;
    Ok(name)
}

/// Loads a library that a file holds; from now on its functions are known. Data are being loaded, so nobody changes
/// libraries beside it.
pub fn load(store: &Store, code: &[u8], replace: bool) -> std::result::Result<(), String> {
    let mut libraries = Libraries::clone(&store.libraries());
    add(store, &mut libraries, code, replace).map_err(|fail| fail.to_string())?;
    store.set_libraries(libraries);
    Ok(())
}
