//! Chance that is the same for the same seed, on every machine and in every release: a forecast
//! that was published can be made again.

/// The `SplitMix64` generator of Steele, Lea and Flood.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers of their own for each purpose.
    pub fn new(seed: u32, purpose: &str) -> Self {
        // FNV-1a, which needs no more than to tell texts apart.
        let bytes = seed.to_le_bytes().into_iter().chain(purpose.bytes());
        let state = bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        });
        Random(state)
    }

    /// One of them, all equally likely. None of nothing.
    pub fn choose<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        items.get(self.below(items.len()))
    }

    /// Brings them into any order, all equally likely.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for left in (2..=items.len()).rev() {
            items.swap(left - 1, self.below(left));
        }
    }

    /// A number from 0 to `bound - 1`; 0 when there is none.
    fn below(&mut self, bound: usize) -> usize {
        // The upper half of the product: as even as 2⁶⁴ numbers can be spread over `bound`.
        let product = u128::from(self.next()) * bound as u128;
        usize::try_from(product >> 64).unwrap_or(0)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(seed: u32, purpose: &str) -> Vec<usize> {
        let mut items: Vec<usize> = (0..20).collect();
        Random::new(seed, purpose).shuffle(&mut items);
        items
    }

    #[test]
    fn the_numbers_are_those_of_the_published_generator() {
        let mut random = Random(1_234_567);
        let numbers = [(); 3].map(|()| random.next());
        let published =
            [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(numbers, published);
    }

    #[test]
    fn the_same_seed_and_purpose_give_the_same_order() {
        assert_eq!(order(1, "a"), order(1, "a"));
        assert_ne!(order(1, "a"), order(2, "a"));
        assert_ne!(order(1, "a"), order(1, "b"));
    }

    #[test]
    fn a_shuffle_keeps_all_items() {
        let mut items = order(7, "");
        items.sort_unstable();
        assert_eq!(items, (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn every_item_is_chosen_about_equally_often() {
        let (items, mut counts) = ([0, 1, 2], [0; 3]);
        let mut random = Random::new(1, "");
        for _ in 0..3000 {
            counts[*random.choose(&items).unwrap()] += 1;
        }
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
        assert_eq!(random.choose::<u8>(&[]), None);
    }
}
