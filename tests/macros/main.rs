//! The attribute at work: the functions that it makes run over the in-process provider.

mod forms;
mod fragments;
mod hygiene;
mod loss;
mod modes;
mod name_property;
mod names;
mod nesting;
mod options;
mod outcomes;
mod parameters;
mod several;
mod size;
mod stacking;
mod support;
