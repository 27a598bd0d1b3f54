//! Identity of a clone.

use std::time::SystemTime;

/// Properties that tell a restored guest from others of the same snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Arguments of the application; `None` leaves those that the guest was started with.
    pub app_args: Option<Vec<String>>,
    /// Environment variables that are set besides those the guest was started with, or in place of
    /// one with the same name.
    pub env: Vec<(String, String)>,
    /// Time of day at which the guest would have been started to have its time-stamp counter now;
    /// `None` leaves it.
    pub boot_time: Option<SystemTime>,
    /// Number by which a guest notices that it resumes from a saved state, where its platform has
    /// one; `None` leaves it.
    pub generation: Option<[u8; 16]>,
}

impl Identity {
    /// Returns `true` if there are arguments or variables.
    pub fn has_words(&self) -> bool {
        self.app_args.is_some() || !self.env.is_empty()
    }

    /// The variables of a guest that was started with `env`.
    pub fn env_over(&self, env: &[(String, String)]) -> Vec<(String, String)> {
        let mut all = env.to_vec();
        for (name, value) in &self.env {
            match all.iter_mut().find(|(other, _)| other == name) {
                Some((_, old)) => old.clone_from(value),
                None => all.push((name.clone(), value.clone())),
            }
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_takes_the_place_of_one_with_its_name() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let identity =
            Identity { env: vec![pair("A", "2"), pair("C", "3")], ..Identity::default() };
        let env = identity.env_over(&[pair("A", "1"), pair("B", "1")]);
        assert_eq!(env, [pair("A", "2"), pair("B", "1"), pair("C", "3")]);
        assert!(identity.has_words() && !Identity::default().has_words());
    }
}
