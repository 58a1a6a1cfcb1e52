//! The attribute of `lock-runtime`.
