//! conntrack-guard: watches `nf_conntrack`'s own insert and drop paths and keeps the table right within the operator's
//! bounds. The modules stand in the order in which the data passes through them; docs/architecture.md says what each
//! must never know.

pub mod config;
pub mod kernel;
pub mod observe;

pub mod model;
pub mod policy;

pub mod actuate;
pub mod advise;
pub mod recording;
pub mod replay;
pub mod report;

pub mod cli;
pub mod commands;
pub mod control;
pub mod daemon;
mod figures;
mod priority;
pub mod ui;
