//! What the audit says of what was being written and never came true.

use crate::core::roles::Note;

/// That what `note` says, which was being written, never came true: `actor` overtook it.
pub(super) fn overtaken(note: &Note, actor: &str) -> Note {
    let reason = format!("it overtook {} by {}, which was not written yet and never came true", note.verb, note.actor);
    never_true(note, actor, "overtaken", reason)
}

/// That what `note` says never came true: the store did not take it, or not that anybody knew of.
#[must_use]
pub fn undone(note: &Note) -> Note {
    never_true(note, "store", "undo", format!("the store did not take {}, which never came true", note.verb))
}

/// That a file never came true of which `note` is a part: it is decided anew as a whole.
#[must_use]
pub fn decided_anew(note: &Note) -> Note {
    let reason =
        format!("something overtook a part of the file: all of it is decided anew, and {} never came true", note.verb);
    never_true(note, &note.actor, "overtaken", reason)
}

fn never_true(note: &Note, actor: &str, verb: &'static str, reason: String) -> Note {
    let (actor, from, to) = (actor.to_owned(), note.to.clone(), note.from.clone());
    Note { actor, source: String::new(), verb, rollout: note.rollout, from, to, reason: Some(reason) }
}
