//! What a claim about speed rests on.
