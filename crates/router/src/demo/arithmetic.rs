//! Sums: read from a sentence, asked in a quiz, checked. The question is in the transcript, so nothing else is kept.

use std::fmt;

/// A sum of two numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sum {
    left: i64,
    sign: char,
    right: i64,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.left, self.sign, self.right)
    }
}

impl Sum {
    /// The question at a place of a quiz: small numbers, in turn added, taken away, multiplied.
    pub(crate) fn at(place: usize) -> Self {
        let place = i64::try_from(place).unwrap_or(0);
        let (small, large) = (2 + (place * 5 + 4) % 9, 3 + (place * 7 + 5) % 10);
        match place % 3 {
            0 => Self {
                left: large,
                sign: '×',
                right: small,
            },
            1 => Self {
                left: large * 3,
                sign: '+',
                right: small * 4,
            },
            _ => Self {
                left: large * 5 + small,
                sign: '−',
                right: small * 2,
            },
        }
    }

    /// The last sum in a text.
    pub(crate) fn find(text: &str) -> Option<Self> {
        let words = words(text);
        words.windows(3).rev().find_map(|three| {
            let [left, sign, right] = three else {
                return None;
            };
            Some(Self {
                left: left.parse().ok()?,
                sign: sign_of(sign)?,
                right: right.parse().ok()?,
            })
        })
    }

    /// What it comes to; `None` where it comes to no whole number that fits.
    pub(crate) fn value(self) -> Option<i64> {
        match self.sign {
            '+' => self.left.checked_add(self.right),
            '−' => self.left.checked_sub(self.right),
            '×' => self.left.checked_mul(self.right),
            _ => self
                .left
                .checked_rem(self.right)
                .filter(|rest| *rest == 0)
                .and(self.left.checked_div(self.right)),
        }
    }
}

/// The number that a short answer gives: `56`, `it is 56!`, `-3`.
pub(crate) fn number(text: &str) -> Option<i64> {
    let words = words(&text.replace('−', "-"));
    let is_short = words.len() <= 5;
    let mut numbers = words.iter().enumerate().filter_map(|(at, word)| {
        let number: i64 = word.parse().ok()?;
        let is_negative = at > 0 && words[at - 1] == "-";
        Some(if is_negative { -number } else { number })
    });
    let first = numbers.next()?;
    (is_short && numbers.next().is_none()).then_some(first)
}

/// Numbers, words and signs, apart.
fn words(text: &str) -> Vec<String> {
    let text = text.to_lowercase().replace("divided by", "÷");
    let mut words: Vec<String> = Vec::new();
    let mut kind = ' ';
    for character in text.chars() {
        let this = match character {
            '0'..='9' => '0',
            c if c.is_alphabetic() => 'a',
            c if c.is_whitespace() || ".,?!=:".contains(c) => ' ',
            _ => '+',
        };
        if this == ' ' {
            kind = ' ';
            continue;
        }
        match words.last_mut() {
            Some(word) if this == kind && this != '+' => word.push(character),
            _ => words.push(character.to_string()),
        }
        kind = this;
    }
    words
}

fn sign_of(word: &str) -> Option<char> {
    match word {
        "+" | "plus" | "and" => Some('+'),
        "-" | "−" | "–" | "minus" => Some('−'),
        "*" | "x" | "×" | "·" | "times" => Some('×'),
        "/" | "÷" => Some('÷'),
        _ => None,
    }
}
