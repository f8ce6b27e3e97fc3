//! What trainings really did, written by themselves outside of the program's reach: a line when one
//! begins and one when it has ended.

use std::path::Path;

/// A training that writes to the ledger, which is its first argument. Its key is the first row's
/// location, and its rainfall the seconds that it takes. One that hesitates may go well later, the
/// first time.
pub(super) const TRAIN: &str = r#"
set -e
key=$(sed -n 2p data.csv | cut -d, -f2)
seconds=$(sed -n 2p data.csv | cut -d, -f3)
note() {
    echo "$1 $key $(date +%s%6N) $3" | dd of="$2" oflag=append conv=notrunc,fsync status=none
}
before=$(grep -c "^begin $key " "$1" || true)
note begin "$1" -
case $key in *Hesitate) [ "$before" -gt 0 ] || exit 75 ;; esac
sleep "$seconds"
{ echo "$key"; head -c 20000 /dev/urandom; } > model
note end "$1" "$(sha256sum model | cut -d' ' -f1)"
"#;

/// One line.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) what: What,
    /// Of which training.
    pub(super) key: String,
    /// When, in microseconds.
    pub(super) at: i64,
    /// The SHA-256 of the model, where there is one.
    pub(super) sum: String,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum What {
    Begin,
    End,
}

/// Every line so far.
pub(super) fn read(ledger: &Path) -> Vec<Line> {
    let text = fs_err::read_to_string(ledger).unwrap_or_default();
    text.lines().map(|it| line(it).unwrap_or_else(|| panic!("no line of a ledger: {it}"))).collect()
}

fn line(text: &str) -> Option<Line> {
    let mut words = text.split(' ').map(str::to_owned);
    let what = match words.next()?.as_str() {
        "begin" => What::Begin,
        "end" => What::End,
        _ => return None,
    };
    let (key, at, sum) = (words.next()?, words.next()?.parse().ok()?, words.next()?);
    Some(Line { what, key, at, sum })
}
