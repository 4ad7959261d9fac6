//! How a schedule is declared. What the macros name is found where they are used.

/// The constructor of a piece or recipe: checks every key, then the conditions between keys.
macro_rules! constructor {
    (
        $doc:literal, $name:ident, $formula:literal,
        { $($key:ident: $type:ty where $allowed:ident, $default:literal;)+ }
        $([require $condition:expr, $limited:ident: $limit:literal])*
        => $body:expr
    ) => {
        #[doc = $doc]
        ///
        /// ```text
        #[doc = $formula]
        /// ```
        ///
        /// Keys in the text, and their defaults there:
        $(#[doc = concat!("- `", stringify!($key), "`: ", $default)])+
        ///
        /// # Errors
        /// [`Error::ScheduleOutOfRange`] if a value is negative, not finite, or not allowed for its key.
        pub fn $name($($key: $type),+) -> Result<Schedule> {
            $(check(stringify!($name), stringify!($key), &$key, &$allowed)?;)+
            $(if !$condition {
                return Err(Error::ScheduleOutOfRange {
                    schedule: stringify!($name),
                    key: stringify!($limited),
                    value: $limited.print(),
                    allowed: format!($limit),
                });
            })*
            Ok($body)
        }
    };
}

/// The one declaration of all schedules. The constructors, their documentation, parsing, printing and the table
/// [`all`] derive from it. In `at`, the keys are references, and t counts from the start of the piece.
macro_rules! schedules {
    (
        pieces {$(
            #[doc = $doc:literal]
            $name:ident = $formula:literal {
                $($key:ident: $type:ty where $allowed:ident, $text:literal => $default:expr;)+
            }
            $([require $condition:expr, $limited:ident: $limit:literal])*
            $piece:ident at |$t:ident| $at:expr;
        )+}
        recipes {$(
            #[doc = $rdoc:literal]
            $rname:ident = $rformula:literal {
                $($rkey:ident: $rtype:ty where $rallowed:ident, $rtext:literal => $rdefault:expr;)+
            }
            $([require $rcondition:expr, $rlimited:ident: $rlimit:literal])*
            $recipe:block
        )+}
    ) => {
        #[derive(Clone, Debug, PartialEq)]
        pub(super) enum Piece {
            $($piece { $($key: $type),+ },)+
        }

        impl Piece {
            fn at(&self, t: u64) -> f64 {
                match self {
                    $(Piece::$piece { $($key),+ } => { let $t = t; $at })+
                }
            }
        }

        impl fmt::Display for Piece {
            fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
                let (name, keys) = match self {
                    $(Piece::$piece { $($key),+ } => (
                        stringify!($name),
                        [$(format!("{}={}", stringify!($key), $key.print())),+].join(","),
                    ),)+
                };
                write!(f, "{name}:{keys}")
            }
        }

        /// The pieces and the known recipes.
        impl Schedule {
            $(constructor! {
                $doc, $name, $formula,
                { $($key: $type where $allowed, $text;)+ }
                $([require $condition, $limited: $limit])*
                => Schedule::from(Piece::$piece { $($key),+ })
            })+
            $(constructor! {
                $rdoc, $rname, $rformula,
                { $($rkey: $rtype where $rallowed, $rtext;)+ }
                $([require $rcondition, $rlimited: $rlimit])*
                => $recipe
            })+
        }

        const ALL: &[Entry] = &[
            $(entry! { $doc, $name, $formula, { $($key: $type where $allowed, $text => $default;)+ } },)+
            $(entry! { $rdoc, $rname, $rformula, { $($rkey: $rtype where $rallowed, $rtext => $rdefault;)+ } },)+
        ];
    };
}

/// The row of [`ALL`] for a piece or recipe.
macro_rules! entry {
    (
        $doc:literal, $name:ident, $formula:literal,
        { $($key:ident: $type:ty where $allowed:ident, $text:literal => $default:expr;)+ }
    ) => {
        Entry {
            name: stringify!($name),
            doc: $doc.trim_ascii(),
            formula: $formula,
            keys: &[$(Key { name: stringify!($key), default: $text, allowed: $allowed.text }),+],
            read: |given, run| {
                $(
                    let default: fn(&Defaults) -> Option<$type> = $default;
                    let $key = given.value(stringify!($key), &$allowed, $text, default(run))?;
                )+
                Schedule::$name($($key),+)
            },
        }
    };
}

pub(super) use {constructor, entry, schedules};
