def test_tiny(tiny_run, tiny_logits, cli):
    assert (tiny_run / "final-ema.safetensors").exists()
    done = cli("analyze", "calibration", tiny_logits)
    assert done.code == 0, done.err
    assert done.record["kind"] == "analysis"
