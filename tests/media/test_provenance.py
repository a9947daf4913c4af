"""Marks of synthetic video: tags, visible text, and a signature that others can verify."""

import datetime
import json

import av
import pytest
import torch

from imtalker import InputError
from imtalker.cli.commands import main
from imtalker.drawn import example as drawn
from imtalker.media import provenance
from imtalker.media.provenance import CERTIFICATE, KEY, TAGS, find_signer, mark
from imtalker.media.video_writer import write_video
from imtalker.pipeline import Clip

GREY = torch.full((3, 128, 128, 3), 0.5)


def changed(marked: torch.Tensor, plain: torch.Tensor) -> torch.Tensor:
    return (marked != plain).any(-1)


def test_the_mark_is_small_in_the_lower_right_corner_and_the_same_in_every_frame():
    (marked,) = mark([GREY], "AI-generated")
    where = changed(marked, GREY)
    assert torch.equal(where[0], where[2])
    rows, columns = (where[0].any(axis).nonzero().flatten() for axis in (1, 0))
    assert (rows.max(), columns.max()) == (127, 127)
    assert rows.min() > 110
    assert 0.001 < where.float().mean() < 0.1
    # readable on dark and bright images: letters are lighter than their ground
    for ground in (0.0, 1.0):
        (written,) = mark([torch.full((1, 512, 512, 3), ground)], "AI")
        corner = written[0, 496:, 470:].flatten()
        assert corner.max() > corner.median() + 0.3
        assert corner.min() >= 0
        assert corner.max() <= 1
    assert torch.equal(GREY, torch.full((3, 128, 128, 3), 0.5))  # the input frames are not modified


def test_frames_of_any_size_are_marked_and_an_empty_text_changes_nothing():
    for shape in ((36, 400, 3), (400, 36, 3), (2, 8, 8, 3)):
        block = torch.rand(shape)
        (marked,) = mark([block], "made by a machine")
        assert marked.shape == block.shape
        assert changed(marked, block).any()
    for text in ("", "  \n"):
        assert [block is GREY for block in mark([GREY], text)] == [True]


def test_a_mark_at_the_top_spans_the_width_and_leaves_the_rest_alone():
    (marked,) = mark([GREY], "untrained weights: not a face", "top")
    strip = changed(marked, GREY)[0].all(1)
    rows = int(strip.sum())
    assert strip[:rows].all()
    assert 4 < rows < 32
    assert torch.equal(marked[:, rows:], GREY[:, rows:])
    assert marked[:, :rows].min() < 0.05
    assert marked[:, :rows].max() > 0.7


def test_a_mark_that_cannot_be_drawn_is_refused_before_any_work():
    def never():
        raise AssertionError("a frame was made")
        yield

    with pytest.raises(InputError, match="not a letter"):
        mark(never(), "AI \x07")
    with pytest.raises(InputError, match="80"):
        mark(never(), "x" * 81)
    mark(never(), "AI-generated (c) 2026, example.org!")


def test_the_command_line_writes_the_mark(inputs, models, tmp_path):
    pixels = []
    for number, text in enumerate(("", "AI")):
        output = tmp_path / f"{number}.mp4"
        command = ["talk", "--source", inputs / "portrait.png", "--audio", inputs / "speech.wav", "--models", models]
        command += ["--crop", "none", "--device", "cpu", "--frames", 2, "--nfe", 2, "--mark", text, "-o", output]
        assert main([str(word) for word in command]) == 0
        with av.open(str(output)) as container:
            frame = next(container.decode(video=0))
            pixels.append(torch.from_numpy(frame.to_ndarray(format="rgb24")).float())
    difference = (pixels[0] - pixels[1]).abs().mean(-1)
    assert difference[-4:, -8:].mean() > 5 * difference[:32].mean() + 5


# C2PA


@pytest.fixture(scope="module")
def pems(tmp_path_factory):
    """PEM files of a made-up certificate chain and its key."""
    pytest.importorskip("c2pa")
    x509 = pytest.importorskip("cryptography.x509")
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    def name(text: str):
        oid = x509.oid.NameOID
        return x509.Name([x509.NameAttribute(oid.ORGANIZATION_NAME, "Test"), x509.NameAttribute(oid.COMMON_NAME, text)])

    def certificate(subject: str, key, issuer: str, issuer_key, authority: bool):
        now = datetime.datetime.now(datetime.timezone.utc)
        usages = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "encipher_only")
        usage = dict.fromkeys((*usages, "decipher_only"), False)
        usage |= {"digital_signature": not authority, "key_cert_sign": authority, "crl_sign": authority}
        builder = x509.CertificateBuilder(name(issuer), name(subject), key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(now - datetime.timedelta(1)).not_valid_after(now + datetime.timedelta(9))
        builder = builder.add_extension(x509.BasicConstraints(authority, None), critical=True)
        builder = builder.add_extension(x509.KeyUsage(**usage), critical=True)
        identifiers = x509.SubjectKeyIdentifier, x509.AuthorityKeyIdentifier
        builder = builder.add_extension(identifiers[0].from_public_key(key.public_key()), False)
        builder = builder.add_extension(identifiers[1].from_issuer_public_key(issuer_key.public_key()), False)
        if not authority:
            purpose = x509.ExtendedKeyUsage([x509.oid.ExtendedKeyUsageOID.EMAIL_PROTECTION])
            builder = builder.add_extension(purpose, critical=True)
        return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    folder = tmp_path_factory.mktemp("pems")
    root, leaf = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    chain = certificate("Holder", leaf, "Root", root, False) + certificate("Root", root, "Root", root, True)
    (folder / "chain.pem").write_bytes(chain)
    secret = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(leaf.private_bytes(serialization.Encoding.PEM, *secret))
    (folder / "other.pem").write_bytes(root.private_bytes(serialization.Encoding.PEM, *secret))
    return folder


@pytest.fixture
def signing(pems, monkeypatch):
    """Environment variables that turn signing on."""
    monkeypatch.setenv(CERTIFICATE, str(pems / "chain.pem"))
    monkeypatch.setenv(KEY, str(pems / "key.pem"))


def manifest(path) -> dict:
    """The manifest in the file's signature; the library raises if there is none."""
    import c2pa

    with c2pa.Reader(str(path)) as reader:
        return json.loads(reader.json())


def assert_signed(path):
    found = manifest(path)
    failures = found["validation_results"]["activeManifest"]["failure"]
    # the only failure is that the test's authority is not a trusted one
    assert {one["code"] for one in failures} == {"signingCredential.untrusted"}
    active = found["manifests"][found["active_manifest"]]
    actions = next(one["data"]["actions"] for one in active["assertions"] if one["label"].startswith("c2pa.actions"))
    assert actions[0]["digitalSourceType"].endswith("trainedAlgorithmicMedia")


def packets(path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux()]


def test_a_saved_clip_is_signed_and_its_streams_are_unchanged(signing, monkeypatch, tmp_path):
    def clip():
        return Clip(iter([GREY]), 25, 3, drawn.speech(0.12))

    clip().save(tmp_path / "signed.mp4")
    monkeypatch.delenv(CERTIFICATE)
    monkeypatch.delenv(KEY)
    clip().save(tmp_path / "plain.mp4")
    assert_signed(tmp_path / "signed.mp4")
    assert packets(tmp_path / "signed.mp4") == packets(tmp_path / "plain.mp4")
    with av.open(str(tmp_path / "signed.mp4")) as container:
        assert container.metadata["comment"] == TAGS["comment"]
    with pytest.raises(Exception, match=r"(?i)manifest"):
        manifest(tmp_path / "plain.mp4")


def test_a_resumed_video_is_signed(signing, inputs, models, tmp_path):
    command = ["talk", "--source", inputs / "portrait.png", "--audio", inputs / "speech.wav", "--models", models]
    command += ["--crop", "none", "--device", "cpu", "--frames", 2, "--nfe", 2, "--resume", "-o", tmp_path / "o.mp4"]
    assert main([str(word) for word in command]) == 0
    assert_signed(tmp_path / "o.mp4")


def test_the_command_signs_an_existing_video(pems, tmp_path):
    write_video(tmp_path / "a.mp4", [GREY], 25, metadata=TAGS)
    files = ["--certificate", str(pems / "chain.pem"), "--key", str(pems / "key.pem")]
    assert main(["sign", str(tmp_path / "a.mp4"), "-o", str(tmp_path / "b.mp4"), *files]) == 0
    assert_signed(tmp_path / "b.mp4")
    assert main(["sign", str(tmp_path / "a.mp4"), *files]) == 0
    assert_signed(tmp_path / "a.mp4")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def test_a_changed_file_fails_verification(signing, tmp_path):
    Clip(iter([torch.rand(4, 64, 64, 3)]), 25, 4, None).save(tmp_path / "a.mp4")
    content = bytearray((tmp_path / "a.mp4").read_bytes())
    position = content.rindex(b"mdat") + 600
    content[position] ^= 255
    (tmp_path / "a.mp4").write_bytes(content)
    failures = manifest(tmp_path / "a.mp4")["validation_results"]["activeManifest"]["failure"]
    assert "assertion.bmffHash.mismatch" in {one["code"] for one in failures}


def test_unusable_certificates_and_keys_are_refused_before_any_work(pems, monkeypatch, tmp_path):
    def never():
        raise AssertionError("a frame was made")
        yield

    chain, key = pems / "chain.pem", pems / "key.pem"
    for certificate, secret, reason in (
        (chain, "", "both"),
        (chain, pems / "none.pem", "none.pem"),
        (chain, chain, "not a PEM private key"),
        (key, key, "cannot sign"),
        (chain, pems / "other.pem", "key that belongs to it"),
    ):
        monkeypatch.setenv(CERTIFICATE, str(certificate))
        monkeypatch.setenv(KEY, str(secret))
        with pytest.raises(InputError, match=reason):
            Clip(never(), 25, 3, None).save(tmp_path / "o.mp4")
    assert not list(tmp_path.iterdir())


def test_a_file_that_cannot_be_signed_is_left_unchanged(pems, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video at all")
    with pytest.raises(InputError, match=r"bad\.mp4"):
        find_signer(pems / "chain.pem", pems / "key.pem").sign(tmp_path / "bad.mp4")
    assert [path.read_bytes() for path in tmp_path.iterdir()] == [b"no video at all"]


def test_a_missing_library_only_matters_for_signing(monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "c2pa", None)
    monkeypatch.delenv(CERTIFICATE, raising=False)
    monkeypatch.delenv(KEY, raising=False)
    assert provenance.find_signer() is None
    assert Clip(iter([GREY]), 25, 3, None).save(tmp_path / "o.mp4") == 3
    with pytest.raises(InputError, match="pip install c2pa-python"):
        provenance.find_signer(tmp_path / "o.mp4", tmp_path / "o.mp4")
