//! What a process gives its jobs besides their bodies: handles of its own, one of each type.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

/// Values by their type. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Given(Arc<HashMap<TypeId, Arc<dyn Any + Send + Sync>>>);

impl Given {
    /// With one more; the last of one type counts.
    pub(crate) fn with<T: Send + Sync + 'static>(mut self, value: T) -> Self {
        Arc::make_mut(&mut self.0).insert(TypeId::of::<T>(), Arc::new(value));
        self
    }

    pub(crate) fn get<T: Send + Sync + 'static>(&self) -> Option<&T> {
        self.0.get(&TypeId::of::<T>())?.downcast_ref()
    }
}

impl fmt::Debug for Given {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Given({})", self.0.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_of_each_type() {
        let given = Given::default().with(1_u8).with("a".to_owned()).with(2_u8);
        assert_eq!(
            (given.get::<u8>(), given.get::<String>().map(String::as_str), given.get::<u16>()),
            (Some(&2), Some("a"), None)
        );
    }
}
