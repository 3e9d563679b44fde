//! What the gate does beside condemning.
