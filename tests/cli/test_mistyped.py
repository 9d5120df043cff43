"""A mistyped word is answered with the word that was meant, whatever its case and dashes."""

import pytest


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("tarin", "No such command: tarin: did you mean 'train'?"),
        ("Attack", "No such command: Attack: did you mean 'attack'?"),
        ("analyze Calibration x.h5", "No such command: Calibration: did you mean 'calibration'?"),
        ("analyze out-of-distribution", "did you mean 'ood'?"),
        ("train --metod adr", "No such option: --metod: did you mean '--method'?"),
        ("train --DATA digits", "did you mean '--data'?"),
        ("train --batch_size 8", "did you mean '--batch-size'?"),
        ("train --method ADR", "unknown method 'ADR': did you mean 'adr'?"),
        ("train --method Trades_ADR-WA", "did you mean 'trades-adr-wa'?"),
        ("train --data digits --arch ResNet18", "did you mean 'resnet18'?"),
        ("train --data digits --arch wideresnet", "did you mean 'wrn'?"),
        ("train --data digits --arch wideresnet-34-10", "did you mean 'wrn-34-10'?"),
        ("train --data digits --arch WideResNet50-2", "did you mean 'wrn-50-2'?"),
        ("train --data CIFAR-10", "did you mean 'cifar10'?"),
        ("train --data digits --norm LINF", "did you mean 'linf'?"),
        ("attack x.safetensors --attack APGD_CE", "did you mean 'apgd-ce'?"),
        ("presets Paper", "did you mean 'paper'?"),
        ("recipes copy ADR_Table1", "did you mean 'adr-table1'?"),
        ("attack x.safetensors --pgd", "No such option: --pgd: did you mean '--attack pgd'?"),
        ("train --version", "No such option: --version: did you mean 'advkit --version'?"),
        ("attack x.safetensors --apgd-ce", "did you mean '--attack apgd-ce'?"),
        ("attack x.safetensors --FGSM", "did you mean '--attack fgsm'?"),
        ("attack x.safetensors --autoatack", "did you mean '--autoattack'?"),
        ("train --trades", "No such option: --trades: did you mean '--method trades' or "),
        ("train --adr-wa --data digits", "did you mean '--method adr-wa'?"),
        ("train --digits", "did you mean '--data digits'?"),
        ("train --data digits --cutmix", "did you mean '--augment cutmix'?"),
        ("train --data digits --small-cnn", "did you mean '--arch small-cnn'?"),
        ("train --data digits --linf", "did you mean '--norm linf'?"),
        (
            "train --data digits --cosine",
            "did you mean '--lr-schedule cosine' or '--anneal cosine'?",
        ),
    ],
)
def test_what_was_meant_is_asked(cli, tmp_path, monkeypatch, line, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.safetensors").write_bytes(b"")
    outcome = cli(*line.split(), "-q") if "presets" not in line else cli(*line.split())
    assert (outcome.code, outcome.out) == (2, "")
    assert said in outcome.err
    assert len(outcome.err.splitlines()) == 1


def test_a_word_like_no_other_is_answered_without_a_guess(cli):
    assert (
        cli("analyze", "zzz").err
        == "advkit analyze zzz: error: No such command: zzz (see --help)\n"
    )
    assert "did you mean" not in cli("train", "--zzzz", "3").err


@pytest.mark.parametrize(("key", "meant"), [("batchsize", "batch_size"), ("Eps", "eps"),
                                            ("weight-decay", "weight_decay")])  # fmt: skip
def test_a_mistyped_key_of_a_file_is_answered_with_the_key(cli, tmp_path, key, meant):
    file = tmp_path / "a.toml"
    file.write_text(f'method = "at"\n{key} = 1\n')
    outcome = cli("train", "--config", file, "--data", "digits", "--print-config")
    assert outcome.code == 2
    assert f"unknown option '{key}': did you mean '{meant}'? (from {file.name})" in outcome.err


def test_print_config_refuses_what_the_run_would(cli):
    for words in (["--log", "foo"], ["--eps", "1e-400"]):
        outcome = cli("train", "--data", "digits", *words, "--print-config")
        assert (outcome.code, outcome.out) == (2, ""), outcome.err
        assert words[1] in outcome.err
