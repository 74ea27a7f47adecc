//! Groups: the series of one component. A group is resolved once, shared by all who name the
//! same labels, and its series disappear when the last of them drops it.

use std::any::Any;
use std::sync::Arc;

use super::family::{Collect, Family, Labels};

/// A group as the registry keeps it.
pub(crate) trait AnyGroup: Collect {
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
}

/// The series of one component, made from its labels.
pub(crate) trait Group: AnyGroup + Any + Sized {
    /// Distinguishes groups that have equal labels.
    const KIND: &'static str;
    /// What the group holds, in order.
    const FAMILIES: &'static [Family];
    fn create(labels: Labels) -> Self;
}

/// Declares a group: a struct of handles, a constructor that takes the labels, and the families.
/// The documentation of a field is the help text of its metric.
macro_rules! metric_group {
    (
        $(#[$doc:meta])*
        pub struct $group:ident { $($label:ident),* }
        $(
            $(#[doc = $help:literal])+
            $field:ident: $value:ident, $level:ident, $unit:ident, $name:literal;
        )+
    ) => {
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $group {
            labels: $crate::metrics::family::Labels,
            $($(#[doc = $help])+ pub $field: $crate::metrics::value::$value,)+
        }

        impl $group {
            /// The handles for these labels. They are shared with everyone who names the same
            /// labels; the series disappear with the last handle.
            pub fn new(
                registry: &$crate::metrics::MetricsRegistry,
                $($label: &str),*
            ) -> std::sync::Arc<$group> {
                registry.group(vec![$((stringify!($label), $label.to_owned())),*])
            }

            /// The metrics of this group.
            pub fn families() -> &'static [$crate::metrics::Family] {
                <$group as $crate::metrics::group::Group>::FAMILIES
            }
        }

        impl $crate::metrics::group::Group for $group {
            const KIND: &'static str = stringify!($group);
            const FAMILIES: &'static [$crate::metrics::Family] = &[$(
                $crate::metrics::Family {
                    name: $name,
                    help: concat!($($help),+).trim_ascii(),
                    kind: <$crate::metrics::value::$value
                        as $crate::metrics::value::MetricValue>::KIND,
                    unit: $crate::metrics::Unit::$unit,
                    level: $crate::metrics::Level::$level,
                },
            )+];

            fn create(labels: $crate::metrics::family::Labels) -> Self {
                $group {
                    labels,
                    $($field: $crate::metrics::value::MetricValue::create(
                        $name,
                        concat!($($help),+).trim_ascii(),
                    ),)+
                }
            }
        }

        impl $crate::metrics::group::AnyGroup for $group {
            fn into_any(
                self: std::sync::Arc<Self>,
            ) -> std::sync::Arc<dyn std::any::Any + Send + Sync> {
                self
            }
        }

        impl $crate::metrics::Collect for $group {
            fn collect(&self, out: &mut $crate::metrics::Gather) {
                use $crate::metrics::value::MetricValue;
                let mut families = Self::families().iter();
                $(
                    if let Some(family) = families.next() {
                        self.$field.gather(family, &self.labels, out);
                    }
                )+
            }

            fn series(&self) -> usize {
                Self::families().len()
            }
        }
    };
}
pub(crate) use metric_group;
