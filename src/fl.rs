//! fl
