//! Assembly text of programs.
