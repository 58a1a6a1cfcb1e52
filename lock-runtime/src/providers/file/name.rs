//! The file of a key, as the .NET `DistributedLock` library names it
//! (its `FileNameValidationHelper`, version 2.8).

use sha2::{Digest, Sha512};
use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

/// How much of the key a person can read, in UTF-16 units; with hash and extension 64 in all.
const READABLE_UNITS: usize = 27;
const HASH_CHARACTERS: usize = 32;
const EXTENSION: &str = ".lock";
/// Every file name ends with as many bytes of hash and extension.
pub(super) const HASH_AND_EXTENSION: usize = HASH_CHARACTERS + EXTENSION.len();

/// Ends the name of the file that a waiting writer has locked, in place of the lock's `.lock`.
const WRITER_EXTENSION: &str = ".lk1-writer";

/// Names the file of the lock of this key.
pub(super) fn file_name(key: &str) -> String {
    let mut name = String::with_capacity(READABLE_UNITS + HASH_AND_EXTENSION);
    let mut units = 0;
    for character in key.chars() {
        // .NET looks at one unit at a time, and half a surrogate pair is no letter.
        for _ in 0..character.len_utf16() {
            if units < READABLE_UNITS {
                name.push(if is_plain(character) { character } else { '_' });
                units += 1;
            }
        }
        if units == READABLE_UNITS {
            break;
        }
    }
    push_hash(&mut name, key);
    name.push_str(EXTENSION);
    name
}

/// Names the turnstile of the reader–writer lock in the file of this name.
pub(super) fn writer_file_name(lock_file_name: &str) -> String {
    let stem = lock_file_name.strip_suffix(EXTENSION);
    format!("{}{WRITER_EXTENSION}", stem.unwrap_or(lock_file_name))
}

/// Names the file of one permit. No lock has such a key, since names contain no NUL.
pub(super) fn permit_file_name(key: &str, slot: u32) -> String {
    file_name(&format!("{key}\0permit{slot}"))
}

/// Names the turnstile of a semaphore.
pub(super) fn permits_file_name(key: &str) -> String {
    file_name(&format!("{key}\0permits"))
}

/// Says what `char.IsLetterOrDigit` of .NET does, and that of an underscore.
fn is_plain(character: char) -> bool {
    use GeneralCategory::{
        DecimalNumber, LowercaseLetter, ModifierLetter, OtherLetter, TitlecaseLetter,
        UppercaseLetter,
    };
    if character.is_ascii() {
        return character.is_ascii_alphanumeric() || character == '_';
    }
    character.len_utf16() == 1
        && matches!(
            character.general_category(),
            UppercaseLetter
                | LowercaseLetter
                | TitlecaseLetter
                | ModifierLetter
                | OtherLetter
                | DecimalNumber
        )
}

/// Appends base 32 of the first 160 bits of SHA-512, least significant bits first, unlike RFC 4648.
fn push_hash(name: &mut String, key: &str) {
    const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    let mut buffer = 0_u32;
    let mut bits = 0;
    for &byte in &Sha512::digest(key.as_bytes())[..HASH_CHARACTERS * 5 / 8] {
        buffer |= u32::from(byte) << bits;
        bits += 8;
        while bits >= 5 {
            name.push(char::from(ALPHABET[buffer as usize & 31]));
            buffer >>= 5;
            bits -= 5;
        }
    }
}
