//! Every file that the node reads or writes; faults of the disk show here and nowhere else.
//!
//! | file | concept |
//! |---|---|
//! | `file`, `fault` | each step that a disk can refuse, and what makes it refuse in tests |
//! | `replace` | a file that is replaced as a whole |
//! | `config_file` | the configuration: read with its includes, replaced by CONFIG REWRITE |
//! | `nodes_file` | nodes.conf |
//! | `rdb_file`, `rdb_load` | RDB files: saved from snapshots, and loaded by all cores |
//! | `aof` | the append-only file |
//! | `check` | what redis-check-rdb and redis-check-aof do |

pub mod aof;
pub mod check;
pub mod config_file;
pub mod fault;
pub mod file;
pub mod nodes_file;
pub mod rdb_file;
pub mod rdb_load;
mod replace;
