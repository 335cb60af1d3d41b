"""Labels of charsets are read as the web reads them, and the names of all accepted labels are stable."""

import pytest

from export_worker.contract.charsets import charset


def read(label: str, data: bytes) -> str:
    found = charset(label)
    text = found.decoder().decode(data, final=True)
    for wrong, right in found.substitutes:
        text = text.replace(wrong, right)
    return text


def written(label: str, text: str) -> bytes:
    return charset(label).encoder().encode(text, final=True)


@pytest.mark.parametrize("label", ["gb2312", "GB_2312-80", "GBK", "x-gbk", "cp936", "MS936", "windows-936", "chinese"])
def test_names_of_gbk_are_read_as_gb18030_with_the_euro_and_written_as_gbk(label: str) -> None:
    assert read(label, "阿·买—镕".encode("gbk") + b"\x80") == "阿·买—镕€"
    assert read(label, "㐀😀".encode("gb18030")) == "㐀😀"
    assert written(label, "阿·买—镕€") == "阿·买—镕".encode("gbk") + b"\x80"
    with pytest.raises(UnicodeEncodeError):
        written(label, "😀")


def test_gb18030_is_written_with_every_character() -> None:
    assert read("GB18030", written("gb18030", "㐀😀€")) == "㐀😀€"


@pytest.mark.parametrize("label", ["shift_jis", "Shift-JIS", "sjis", "windows-31j", "x-sjis", "ms932"])
def test_names_of_shift_jis_are_windows_31j(label: str) -> None:
    assert read(label, b"\x87\x40\xed\x40") == "①纊"
    assert written(label, "①纊") == "①纊".encode("cp932")


@pytest.mark.parametrize("label", ["euc-kr", "ks_c_5601-1987", "korean", "windows-949", "ksc5601"])
def test_names_of_euc_kr_are_windows_949(label: str) -> None:
    assert read(label, "똠방각하".encode("cp949")) == "똠방각하"
    assert written(label, "똠방각하") == "똠방각하".encode("cp949")


@pytest.mark.parametrize("label", ["big5", "Big5-HKSCS", "cn-big5", "x-x-big5"])
def test_names_of_big5_are_read_with_the_characters_of_hong_kong_and_of_windows(label: str) -> None:
    assert read(label, b"\xa1\x45\xa1\x4e\xf9\xd6\xc6\xa1\xa4\xa4") == "\u2027\ufe51碁①中"
    assert written(label, "碁\u2027中") == b"\xf9\xd6\xa1\x45\xa4\xa4"


def test_euro_of_big5_is_read_as_it_is_written() -> None:
    assert written("big5", "中€") == b"\xa4\xa4\xa3\xe1"
    assert read("big5", b"\xa4\xa4\xa3\xe1") == "中€"
    decoder = charset("big5").decoder()
    assert decoder.decode(b"\xa3") + decoder.decode(b"\xe1", final=True) == "€"
    with pytest.raises(UnicodeDecodeError):
        read("big5", b"\xa3\xe2")


def test_windows_874_is_read_and_written_as_the_web_does() -> None:
    assert read("windows-874", b"\x80\x81\xa1") == "€\x81ก"
    assert written("windows-874", "€ก") == b"\x80\xa1"


@pytest.mark.parametrize("label", ["latin1", "ISO-8859-1", "l1", "windows-1252", "cp1252"])
def test_names_of_latin1_are_read_as_windows_1252(label: str) -> None:
    assert read(label, b"\x80\x81\x9f\xe9") == "€\x81Ÿé"


def test_latin1_is_written_without_the_characters_of_windows() -> None:
    assert written("latin1", "é") == b"\xe9"
    with pytest.raises(UnicodeEncodeError):
        written("latin1", "€")


@pytest.mark.parametrize("label", ["UTF8\n", " utf-8", "utf 8", "UTF-8\0", "", "é"])
def test_label_with_other_characters_is_refused(label: str) -> None:
    with pytest.raises(ValueError, match="must be a charset"):
        charset(label)
