//! Threads over a flat list of work; without the feature `rayon`, the same work on one thread.
//!
//! What runs in each piece is passed on as a reference to a trait object: a call per piece costs nothing
//! compared with the piece, and the machinery of threads is compiled once per type of item, not once per caller.

/// Below this many elements in total, waking threads costs more than it gains.
#[cfg(feature = "rayon")]
pub const SERIAL_BELOW: usize = 50_000;

/// Runs `f` on every item; on several threads if `elements` is large enough to be worth it.
///
/// Items are independent, so the result does not depend on the number of threads.
pub fn for_each<I: Send>(items: &mut [I], elements: usize, f: impl Fn(&mut I) + Sync + Send) {
    #[cfg(feature = "rayon")]
    if elements >= SERIAL_BELOW && items.len() > 1 && rayon::current_num_threads() > 1 {
        return in_parallel(items, &f);
    }
    let _ = elements;
    items.iter_mut().for_each(f);
}

#[cfg(feature = "rayon")]
fn in_parallel<I: Send>(items: &mut [I], f: &(dyn Fn(&mut I) + Sync)) {
    use rayon::prelude::*;
    items.par_iter_mut().for_each(f);
}

/// [`for_each`] for items of very different cost: the longest begin first, so that no thread is left
/// alone with one of them in the end.
pub fn for_each_longest_first<I: Send>(
    items: &mut [I],
    elements: usize,
    cost: impl Fn(&I) -> f64,
    f: impl Fn(&mut I) + Sync + Send,
) {
    #[cfg(feature = "rayon")]
    if elements >= SERIAL_BELOW && items.len() > 2 && rayon::current_num_threads() > 1 {
        return longest_first(items, &cost, &f);
    }
    let _ = cost;
    for_each(items, elements, f);
}

#[cfg(feature = "rayon")]
fn longest_first<I: Send>(items: &mut [I], cost: &dyn Fn(&I) -> f64, f: &(dyn Fn(&mut I) + Sync)) {
    use rayon::prelude::*;
    let mut sorted: Vec<(f64, &mut I)> = items.iter_mut().map(|item| (cost(item), item)).collect();
    sorted.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    sorted.into_iter().par_bridge().for_each(|(_, item)| f(item));
}

/// Runs both, on two threads if one is free.
#[cfg(feature = "faer")] // nothing else asks for it
pub fn join(a: impl FnOnce() + Send, b: impl FnOnce() + Send) {
    #[cfg(feature = "rayon")]
    if rayon::current_num_threads() > 1 {
        rayon::join(a, b);
        return;
    }
    a();
    b();
}

/// Whether `f` holds for every item; on several threads if `elements` is large enough.
pub fn all<I: Sync>(items: &[I], elements: usize, f: impl Fn(&I) -> bool + Sync + Send) -> bool {
    #[cfg(feature = "rayon")]
    if elements >= SERIAL_BELOW && items.len() > 1 && rayon::current_num_threads() > 1 {
        return all_in_parallel(items, &f);
    }
    let _ = elements;
    items.iter().all(f)
}

#[cfg(feature = "rayon")]
fn all_in_parallel<I: Sync>(items: &[I], f: &(dyn Fn(&I) -> bool + Sync)) -> bool {
    use rayon::prelude::*;
    items.par_iter().all(f)
}

/// Whether `f` holds for every piece of `piece` items; on several threads if there are enough.
pub fn all_chunks<I: Sync>(
    items: &[I],
    piece: usize,
    f: impl Fn(&[I]) -> bool + Sync + Send,
) -> bool {
    #[cfg(feature = "rayon")]
    if items.len() > 2 * piece && rayon::current_num_threads() > 1 {
        return all_chunks_in_parallel(items, piece, &f);
    }
    items.chunks(piece).all(f)
}

#[cfg(feature = "rayon")]
fn all_chunks_in_parallel<I: Sync>(
    items: &[I],
    piece: usize,
    f: &(dyn Fn(&[I]) -> bool + Sync),
) -> bool {
    use rayon::prelude::*;
    items.par_chunks(piece).all(f)
}

/// Runs `f(offset, piece)` on every piece of `piece` items, on several threads if there are enough.
pub fn for_each_piece<I: Send>(
    items: &mut [I],
    piece: usize,
    f: impl Fn(usize, &mut [I]) + Sync + Send,
) {
    #[cfg(feature = "rayon")]
    if items.len() >= SERIAL_BELOW && items.len() > piece && rayon::current_num_threads() > 1 {
        return pieces_in_parallel(items, piece, &f);
    }
    for (i, items) in items.chunks_mut(piece).enumerate() {
        f(i * piece, items);
    }
}

#[cfg(feature = "rayon")]
fn pieces_in_parallel<I: Send>(
    items: &mut [I],
    piece: usize,
    f: &(dyn Fn(usize, &mut [I]) + Sync),
) {
    use rayon::prelude::*;
    items.par_chunks_mut(piece).enumerate().for_each(|(i, items)| f(i * piece, items));
}

/// The sum of `f(offset, len)` over the pieces of `0 .. total`, in an order that threads do not change.
pub fn sum_pieces(
    total: usize,
    piece: usize,
    f: impl Fn(usize, usize) -> f64 + Sync + Send,
) -> f64 {
    let pieces = total.div_ceil(piece);
    let term = |i: usize| f(i * piece, piece.min(total - i * piece));
    #[cfg(feature = "rayon")]
    if total >= SERIAL_BELOW && pieces > 1 && rayon::current_num_threads() > 1 {
        return sum_in_parallel(pieces, &term);
    }
    (0..pieces).map(term).sum()
}

#[cfg(feature = "rayon")]
fn sum_in_parallel(terms: usize, term: &(dyn Fn(usize) -> f64 + Sync)) -> f64 {
    use rayon::prelude::*;
    let terms: Vec<f64> = (0..terms).into_par_iter().map(term).collect();
    terms.iter().sum()
}
