//! Which character set a collation id stands for.
//!
//! Row metadata names collations by number. The numbers of MySQL and MariaDB do not clash, so one table serves both.

/// Character sets with the ranges of their collations' ids, both ends inclusive.
///
/// What MySQL 9.7.4 answers to `SELECT id, character_set_name FROM information_schema.collations` and MariaDB 10.11.19 to the
/// same on `information_schema.collation_character_set_applicability`, merged; a test asks both servers again.
#[rustfmt::skip]
const COLLATIONS: &[(&str, &[(u16, u16)])] = &[
    ("armscii8", &[(32, 32), (64, 64), (1056, 1056), (1088, 1088)]),
    ("ascii", &[(11, 11), (65, 65), (1035, 1035), (1089, 1089)]),
    ("big5", &[(1, 1), (84, 84), (1025, 1025), (1108, 1108)]),
    ("binary", &[(63, 63)]),
    ("cp1250", &[(26, 26), (34, 34), (44, 44), (66, 66), (99, 99), (1050, 1050), (1090, 1090)]),
    ("cp1251", &[(14, 14), (23, 23), (50, 52), (1074, 1075)]),
    ("cp1256", &[(57, 57), (67, 67), (1081, 1081), (1091, 1091)]),
    ("cp1257", &[(29, 29), (58, 59), (1082, 1083)]),
    ("cp850", &[(4, 4), (80, 80), (1028, 1028), (1104, 1104)]),
    ("cp852", &[(40, 40), (81, 81), (1064, 1064), (1105, 1105)]),
    ("cp866", &[(36, 36), (68, 68), (1060, 1060), (1092, 1092)]),
    ("cp932", &[(95, 96), (1119, 1120)]),
    ("dec8", &[(3, 3), (69, 69), (1027, 1027), (1093, 1093)]),
    ("eucjpms", &[(97, 98), (1121, 1122)]),
    ("euckr", &[(19, 19), (85, 85), (1043, 1043), (1109, 1109)]),
    ("gb18030", &[(248, 250)]),
    ("gb2312", &[(24, 24), (86, 86), (1048, 1048), (1110, 1110)]),
    ("gbk", &[(28, 28), (87, 87), (1052, 1052), (1111, 1111)]),
    ("geostd8", &[(92, 93), (1116, 1117)]),
    ("greek", &[(25, 25), (70, 70), (1049, 1049), (1094, 1094)]),
    ("hebrew", &[(16, 16), (71, 71), (1040, 1040), (1095, 1095)]),
    ("hp8", &[(6, 6), (72, 72), (1030, 1030), (1096, 1096)]),
    ("keybcs2", &[(37, 37), (73, 73), (1061, 1061), (1097, 1097)]),
    ("koi8r", &[(7, 7), (74, 74), (1031, 1031), (1098, 1098)]),
    ("koi8u", &[(22, 22), (75, 75), (1046, 1046), (1099, 1099)]),
    ("latin1", &[(5, 5), (8, 8), (15, 15), (31, 31), (47, 49), (94, 94), (1032, 1032), (1071, 1071)]),
    ("latin2", &[(2, 2), (9, 9), (21, 21), (27, 27), (77, 77), (1033, 1033), (1101, 1101)]),
    ("latin5", &[(30, 30), (78, 78), (1054, 1054), (1102, 1102)]),
    ("latin7", &[(20, 20), (41, 42), (79, 79), (1065, 1065), (1103, 1103)]),
    ("macce", &[(38, 38), (43, 43), (1062, 1062), (1067, 1067)]),
    ("macroman", &[(39, 39), (53, 53), (1063, 1063), (1077, 1077)]),
    ("sjis", &[(13, 13), (88, 88), (1037, 1037), (1112, 1112)]),
    ("swe7", &[(10, 10), (82, 82), (1034, 1034), (1106, 1106)]),
    ("tis620", &[(18, 18), (89, 89), (1042, 1042), (1113, 1113)]),
    ("ucs2", &[(35, 35), (90, 90), (128, 151), (159, 159), (640, 642), (1059, 1059), (1114, 1114), (1152, 1152),
        (1174, 1174), (2560, 2727), (2744, 2759)]),
    ("ujis", &[(12, 12), (91, 91), (1036, 1036), (1115, 1115)]),
    ("utf16", &[(54, 55), (101, 124), (672, 674), (1078, 1079), (1125, 1125), (1147, 1147), (2816, 2983),
        (3000, 3015)]),
    ("utf16le", &[(56, 56), (62, 62), (1080, 1080), (1086, 1086)]),
    ("utf32", &[(60, 61), (160, 183), (736, 738), (1084, 1085), (1184, 1184), (1206, 1206), (3072, 3239),
        (3256, 3271)]),
    ("utf8mb3", &[(33, 33), (76, 76), (83, 83), (192, 215), (223, 223), (576, 578), (1057, 1057), (1107, 1107),
        (1216, 1216), (1238, 1238), (2048, 2215), (2232, 2247)]),
    ("utf8mb4", &[(45, 46), (224, 247), (255, 271), (273, 275), (277, 294), (296, 298), (300, 300), (303, 323),
        (608, 610), (1069, 1070), (1248, 1248), (1270, 1270), (2304, 2471), (2488, 2503)]),
];

/// The character set of a collation, by the server's name for it; `None` for a number that neither server has.
pub fn charset_of(collation: u64) -> Option<&'static str> {
    let id = u16::try_from(collation).ok()?;
    let has = |ranges: &[(u16, u16)]| ranges.iter().any(|&(first, last)| first <= id && id <= last);
    COLLATIONS.iter().find(|(_, ranges)| has(ranges)).map(|(name, _)| *name)
}

/// The same name with the life of the program; `None` for a character set that neither server has.
pub(crate) fn known_charset(name: &str) -> Option<&'static str> {
    // MySQL before 8.0.30 and MariaDB before 10.6 say `utf8` for utf8mb3.
    let name = if name == "utf8" { "utf8mb3" } else { name };
    COLLATIONS.iter().find(|(known, _)| *known == name).map(|(known, _)| *known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_collations() {
        assert_eq!(charset_of(63), Some("binary"));
        assert_eq!(charset_of(255), Some("utf8mb4"));
        assert_eq!(charset_of(8), Some("latin1"));
        assert_eq!(charset_of(17), None);
        assert_eq!(charset_of(u64::MAX), None);
        assert_eq!(known_charset("utf8"), Some("utf8mb3"));
        assert_eq!(known_charset("nothing"), None);
    }

    #[test]
    fn no_id_belongs_to_two_character_sets() {
        let mut ranges: Vec<(u16, u16)> = COLLATIONS.iter().flat_map(|(_, ranges)| ranges.iter().copied()).collect();
        ranges.sort_unstable();
        assert!(ranges.len() > 150);
        assert!(ranges.windows(2).all(|pair| pair[0].1 < pair[1].0));
    }
}
