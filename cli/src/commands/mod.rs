//! What users run, beside `lambent dev`.

pub mod check;
pub mod completions;
pub mod describe;
pub mod invoke;
pub mod list;
pub mod logs;
pub mod new;
