//! Sets of small numbers: one bit each.

/// Numbers below a limit that all sets of one computation share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bits(Box<[u64]>);

impl Bits {
    /// The empty set of numbers below `limit`.
    pub(super) fn none(limit: usize) -> Self {
        Self(vec![0; limit.div_ceil(64)].into())
    }

    /// Every number below `limit`.
    pub(super) fn all(limit: usize) -> Self {
        let mut bits = Self::none(limit);
        for (position, word) in bits.0.iter_mut().enumerate() {
            let rest = limit - position * 64;
            *word = if rest >= 64 { u64::MAX } else { (1 << rest) - 1 };
        }
        bits
    }

    /// Adds a number; one at or beyond the limit is not in the set afterwards either.
    pub(super) fn insert(&mut self, number: usize) {
        if let Some(word) = self.0.get_mut(number / 64) {
            *word |= 1 << (number % 64);
        }
    }

    /// Whether it holds a number.
    pub(super) fn contains(&self, number: usize) -> bool {
        self.0
            .get(number / 64)
            .is_some_and(|word| word >> (number % 64) & 1 == 1)
    }

    /// Whether it holds none.
    pub(super) fn is_empty(&self) -> bool {
        self.0.iter().all(|word| *word == 0)
    }

    /// Takes in everything that the other holds.
    pub(super) fn add(&mut self, other: &Self) {
        for (word, more) in self.0.iter_mut().zip(&other.0) {
            *word |= more;
        }
    }

    /// Keeps only what the other holds too.
    pub(super) fn keep(&mut self, other: &Self) {
        for (word, kept) in self.0.iter_mut().zip(&other.0) {
            *word &= kept;
        }
    }

    /// Keeps only what the other does not hold.
    pub(super) fn drop_all(&mut self, other: &Self) {
        for (word, gone) in self.0.iter_mut().zip(&other.0) {
            *word &= !gone;
        }
    }

    /// What both hold.
    pub(super) fn and(&self, other: &Self) -> Self {
        Self(self.0.iter().zip(&other.0).map(|(a, b)| a & b).collect())
    }

    /// The numbers, ascending.
    pub(super) fn iter(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().enumerate().flat_map(|(position, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                if rest == 0 {
                    return None;
                }
                let lowest = rest.trailing_zeros();
                rest &= rest - 1;
                Some(position * 64 + lowest as usize)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_numbers() {
        for limit in [0, 1, 63, 64, 65, 130] {
            let all = Bits::all(limit);
            assert!(all.iter().eq(0..limit), "{limit}");
            assert!(!all.contains(limit), "{limit}");
        }
        let of = |numbers: &[usize]| {
            let mut bits = Bits::none(130);
            for number in numbers {
                bits.insert(*number);
            }
            bits
        };
        let (some, others) = (of(&[0, 63, 64, 129]), of(&[63, 100]));
        assert!(some.and(&others).iter().eq([63]));
        let mut rest = some.clone();
        rest.drop_all(&others);
        assert!(rest.iter().eq([0, 64, 129]));
        rest.add(&others);
        assert_eq!(rest, of(&[0, 63, 64, 100, 129]));
        rest.keep(&of(&[129]));
        assert!(rest.contains(129) && !rest.is_empty());
    }
}
