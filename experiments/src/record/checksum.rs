//! Checksums of records, so that a record that was damaged or changed is not taken for what a run has written.

use anyhow::{Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The key of a JSON record's own checksum. It is the last one.
const KEY: &str = "checksum";

/// A SHA-256 in hexadecimal digits.
pub fn hex(hash: Sha256) -> String {
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Adds to a JSON object the SHA-256 of its compact form.
pub fn seal(mut record: Value) -> Value {
    let sum = of(&record);
    if let Value::Object(fields) = &mut record {
        fields.insert(KEY.to_owned(), sum.into());
    }
    record
}

/// Takes the checksum out of a record again. A record without one, as programs before this one wrote, stays as it is.
///
/// # Errors
/// When the checksum is of something else.
pub fn unseal(mut record: Value) -> Result<Value> {
    let sum = record.as_object_mut().and_then(|fields| fields.shift_remove(KEY));
    if sum.is_some_and(|sum| sum != of(&record)) {
        bail!("its checksum is of something else: it was damaged or changed");
    }
    Ok(record)
}

fn of(record: &Value) -> String {
    hex(Sha256::new_with_prefix(record.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_record_without_a_checksum_is_read_and_a_changed_one_is_not() {
        let record = json!({"loss": 0.1, "steps": 9_007_199_254_740_993u64, "names": ["a", null], "least": 5e-324, "zero": -0.0});
        assert_eq!(unseal(record.clone()).unwrap(), record);
        let sealed = seal(record.clone());
        // Numbers keep their bits on the way through the file, and its layout is not part of the record.
        for text in [sealed.to_string(), serde_json::to_string_pretty(&sealed).unwrap()] {
            assert_eq!(unseal(serde_json::from_str(&text).unwrap()).unwrap(), record);
        }
        for (from, to) in
            [("0.1", "0.10000000000000002"), ("993", "992"), ("\"a\"", "\"b\""), ("null", "0"), ("-0.0", "0.0")]
        {
            let changed = sealed.to_string().replacen(from, to, 1);
            assert!(unseal(serde_json::from_str(&changed).unwrap()).is_err(), "{changed}");
        }
    }
}
