//! The times of documents and those of the system, whose clock the core does not know.

use std::time::{Duration, SystemTime};

use crate::typed::Timestamp;

impl From<SystemTime> for Timestamp {
    /// Cut to the millisecond before it; what a timestamp cannot say is the earliest or latest one.
    fn from(time: SystemTime) -> Self {
        let ms = |time: Duration| i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        Self(match time.duration_since(SystemTime::UNIX_EPOCH) {
            Ok(since) => ms(since),
            Err(before) => {
                let before = before.duration();
                let is_cut = before.subsec_nanos() % 1_000_000 != 0;
                -ms(before) - i64::from(is_cut)
            }
        })
    }
}

impl Timestamp {
    /// The same as a time of the system; `None` if it has no such time.
    #[must_use]
    pub fn system_time(self) -> Option<SystemTime> {
        let since = Duration::from_millis(self.0.unsigned_abs());
        match self.0 {
            0.. => SystemTime::UNIX_EPOCH.checked_add(since),
            _ => SystemTime::UNIX_EPOCH.checked_sub(since),
        }
    }
}
