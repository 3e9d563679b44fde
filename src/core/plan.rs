//! What a changed file asks for, compared with what runs.
