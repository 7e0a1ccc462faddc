//! Maps by name with a hash that is fast on short names; its seed differs from run to run, so that no file can be
//! made to collide.

use std::collections;

use foldhash::fast::RandomState;

pub(crate) type HashMap<K, V> = collections::HashMap<K, V, RandomState>;
pub(crate) type HashSet<K> = collections::HashSet<K, RandomState>;
