//! What users run, beside `lambent dev`.

pub mod check;
