//! State dicts written by earlier versions load, and training continues with the same numbers.
//!
//! `tests/fixtures/checkpoints/README.md` says what the files hold and how new ones are written.
#![cfg(feature = "safetensors")]
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test may panic")]

use eigenstep_instances as _;

#[path = "old_checkpoints/elementwise.rs"]
mod elementwise;
#[path = "old_checkpoints/fixture.rs"]
mod fixture;
#[path = "old_checkpoints/helpers.rs"]
mod helpers;
#[path = "old_checkpoints/low_bits.rs"]
mod low_bits;
#[path = "old_checkpoints/matrices.rs"]
mod matrices;
#[path = "old_checkpoints/run.rs"]
mod run;
#[path = "old_checkpoints/windows.rs"]
mod windows;
#[path = "old_checkpoints/zeroth_order.rs"]
mod zeroth_order;

use fixture::Case;

/// Every case, whatever file it stands in.
fn cases() -> Vec<Case> {
    let lists = [
        elementwise::cases(),
        low_bits::cases(),
        matrices::cases(),
        windows::cases(),
        zeroth_order::cases(),
        helpers::cases(),
    ];
    lists.into_iter().flatten().collect()
}

/// Writes the files of cases that have none. Existing files are never changed: they come from the
/// version that wrote them. The command:
/// `cargo test --features half,safetensors --test old_checkpoints -- --ignored`
#[test]
#[ignore = "writes files"]
fn write_fixtures() {
    cases().iter().for_each(fixture::write);
}

/// The bf16 cases need the feature `half`.
#[cfg(feature = "half")]
#[test]
fn every_file_belongs_to_a_case() {
    let mut expected: Vec<String> = cases().iter().flat_map(fixture::files).collect();
    let mut found = fixture::folder_content();
    expected.sort();
    found.sort();
    assert_eq!(found, expected);
}
