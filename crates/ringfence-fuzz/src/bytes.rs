//! Choices out of bytes: the same input always gives the same choices, and a longer input gives more of them.

/// A reader that never ends: after the last byte everything is 0, the first choice.
#[derive(Debug, Clone)]
pub struct Bytes<'a> {
    rest: &'a [u8],
}

impl<'a> Bytes<'a> {
    /// From the first byte on.
    pub fn new(data: &'a [u8]) -> Self {
        Self { rest: data }
    }

    /// Whether every byte has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte, or 0.
    pub fn byte(&mut self) -> u8 {
        let (first, rest) = self.rest.split_first().unwrap_or((&0, &[]));
        self.rest = rest;
        *first
    }

    /// Whether something happens; after the end it does not.
    pub fn flag(&mut self) -> bool {
        self.byte() % 2 == 1
    }

    /// Happens once in about `times` times; after the end it does not.
    pub fn rarely(&mut self, times: u8) -> bool {
        self.byte() % times.max(2) == 1
    }

    /// A number from 0 to `below - 1`; 0 where that is empty.
    pub fn below(&mut self, below: usize) -> usize {
        usize::from(self.byte()).checked_rem(below).unwrap_or(0)
    }

    /// The next two bytes as a number.
    pub fn u16(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// One of these.
    pub fn pick<'t, T: ?Sized>(&mut self, from: &[&'t T]) -> &'t T {
        from[self.below(from.len())]
    }

    /// Up to `most` results of the closure.
    pub fn several<T>(&mut self, most: usize, mut one: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(most + 1)).map(|_| one(self)).collect()
    }
}
