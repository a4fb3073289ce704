//! Every file that the node reads or writes; faults of the disk show here and nowhere else. `file` is where each step
//! can fail, `fault` makes it fail in tests.

pub mod aof;
pub mod check;
pub mod config_file;
pub mod fault;
pub mod file;
pub mod nodes_file;
pub mod rdb_file;
pub mod rdb_load;
mod replace;
