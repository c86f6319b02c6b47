//! Parts of error texts: lists of names, and the name that was meant.

/// `what` and the first few names; nothing if there is none.
pub(super) fn listed(what: &str, names: &[String]) -> String {
    const SHOWN: usize = 5;
    if names.is_empty() {
        return String::new();
    }
    let shown: Vec<String> = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect();
    let more = match names.len().saturating_sub(SHOWN) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    format!("{what} {}{more}", shown.join(", "))
}

/// The name or pattern that was meant, or else the first few names that there are.
pub(super) fn hint(name: &str, known: &[String]) -> String {
    let digits = |name: &str| name.chars().filter(char::is_ascii_digit).collect::<String>();
    let alike: Vec<String> = known.iter().map(|known| with_stars(known, name)).collect();
    // another number is another layer, and no typing error
    let same_layer = alike.iter().filter(|alike| digits(alike) == digits(name));
    match nearest(name, same_layer.map(String::as_str)) {
        Some(near) => format!(" (did you mean `{near}`?)"),
        None => match listed("the parameters are", known) {
            list if list.is_empty() => list,
            list => format!(" ({list})"),
        },
    }
}

/// `name` with a star for what the star at the beginning or at the end of `pattern` stands for.
fn with_stars(name: &str, pattern: &str) -> String {
    let written = pattern.split('.').count() - 1;
    if pattern.starts_with("*.") {
        let mut last: Vec<&str> = name.rsplit('.').take(written).collect();
        last.push("*");
        last.reverse();
        last.join(".")
    } else if pattern.ends_with(".*") {
        let first = name.split('.').take(written);
        first.chain(["*"]).collect::<Vec<_>>().join(".")
    } else {
        name.to_owned()
    }
}

/// ` (did you mean `…`?)` for a name that is nearly one of a comma-separated list.
pub(super) fn meant(name: &str, known: &str) -> String {
    let near = nearest(name, known.split(", "));
    near.map_or_else(String::new, |near| format!(" (did you mean `{near}`?)"))
}

/// The name that `name` was meant to be: the one with the fewest typing errors, if these are at most a third of its
/// letters.
pub(crate) fn nearest<'k>(name: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let found = known.map(|known| (typing_errors(name, known), known));
    // of one letter nothing would be left
    let letters = name.chars().count();
    let most = if letters > 1 { (letters / 3).max(1) } else { 0 };
    found
        .filter(|(errors, _)| (1..=most).contains(errors))
        .min_by_key(|(errors, _)| *errors)
        .map(|(_, known)| known)
}

/// Letters to insert, to remove, to change, or to swap with their neighbour.
fn typing_errors(a: &str, b: &str) -> usize {
    let (mut before, mut last) = (Vec::new(), (0..=b.chars().count()).collect::<Vec<_>>());
    let mut previous = None;
    for (i, x) in a.chars().enumerate() {
        let mut row = vec![i + 1];
        let mut left = None;
        for (j, y) in b.chars().enumerate() {
            let at = |row: &[usize], j: usize| row.get(j).copied().unwrap_or(usize::MAX - 1);
            let mut least =
                (at(&last, j) + usize::from(x != y)).min(at(&last, j + 1).min(at(&row, j)) + 1);
            if j > 0 && previous == Some(y) && left == Some(x) {
                least = least.min(at(&before, j - 1).saturating_add(1));
            }
            row.push(least);
            left = Some(y);
        }
        before = std::mem::replace(&mut last, row);
        previous = Some(x);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_counted() {
        for (a, b, expected) in [
            ("weigth_decay", "weight_decay", 1),
            ("", "lr", 2),
            ("lr", "lr", 0),
            ("beta", "betas.0", 3),
            ("kitten", "sitting", 3),
        ] {
            assert_eq!((typing_errors(a, b), typing_errors(b, a)), (expected, expected), "{a} {b}");
        }
        let known = || ["lr", "betas.0", "betas.1", "weight_decay"].into_iter();
        assert_eq!(nearest("weigth_decay", known()), Some("weight_decay"));
        assert_eq!((nearest("temperature", known()), nearest("lR", known())), (None, Some("lr")));
    }

    #[test]
    fn a_name_that_is_wrong_brings_the_one_that_was_meant_or_a_few() {
        let known = ["fc1.weight", "fc1.bias", "fc2.weight"].map(str::to_owned);
        assert_eq!(hint("fc1.wieght", &known), " (did you mean `fc1.weight`?)");
        let all = " (the parameters are `fc1.weight`, `fc1.bias`, `fc2.weight`)";
        assert_eq!(hint("encoder", &known), all);
        assert_eq!(hint("encoder", &[]), "");
        assert_eq!(hint("*.wieght", &known), " (did you mean `*.weight`?)");
        assert_eq!(hint("cf1.*", &known), " (did you mean `fc1.*`?)");
        assert_eq!(hint("decoder.*", &known), all);
        assert_eq!(hint("fc3.weight", &known), all);
    }
}
