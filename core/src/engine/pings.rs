//! The pings of a connection, of which one at a time is on its way.

/// They are numbered by the last question before them.
#[derive(Debug)]
pub(super) struct Pings {
    /// What is said on this connection is said after this question.
    answered: u64,
    /// The one that is on its way.
    sent: Option<u64>,
    /// Somebody asked since, and its answer may be on its way as well.
    again: bool,
}

impl Pings {
    /// Of a new connection: whatever is said on it is said after all that was asked.
    pub(super) fn new(asked: u64) -> Self {
        Self {
            answered: asked,
            sent: None,
            again: false,
        }
    }

    /// One is needed: whether it is to be sent. Otherwise one is on its way, whose answer says as much
    /// of the connection, and must not be taken for that of another.
    pub(super) fn send(&mut self, asked: u64) -> bool {
        let is_first = self.sent.is_none();
        self.sent.get_or_insert(asked);
        is_first
    }

    /// A question was asked: whether one is to be sent now. Otherwise one is when that which is on its
    /// way is answered.
    pub(super) fn ask(&mut self) -> bool {
        self.again = self.sent.is_some();
        !self.again
    }

    /// The one that is on its way is answered: whether another is to be sent.
    pub(super) fn answer(&mut self) -> bool {
        match self.sent.take() {
            Some(answered) => {
                self.answered = answered;
                std::mem::take(&mut self.again)
            }
            None => false,
        }
    }

    /// Whether what is said on the connection is said after this question.
    pub(super) fn have_answered(&self, question: u64) -> bool {
        self.answered >= question
    }
}
