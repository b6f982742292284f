//! A local Bot API server with faults, scripted suppliers and recording consumers.
