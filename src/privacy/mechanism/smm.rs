//! smm
