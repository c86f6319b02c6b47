//! The text of an error.

use eigenstep::Result;

/// Asserts that there is an error, and what it says.
#[track_caller]
pub fn says<T>(outcome: Result<T>, text: &str) {
    match outcome {
        Ok(_) => panic!("no error, where `{text}` was expected"),
        Err(error) => assert_eq!(error.to_string(), text),
    }
}
