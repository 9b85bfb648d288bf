"""One process of a job of several processes: python process.py PORT COUNT INDEX JSON."""

import json
import sys
import time
from pathlib import Path

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")


def main(argv):
    port, count, index, job = int(argv[1]), int(argv[2]), int(argv[3]), json.loads(argv[4])
    from phenaki import sharding

    if count > 1:
        sharding.start(f"localhost:{port}", count, index)
    import tiny
    import toy

    from phenaki.train import maskgit, tokenizer

    workdir, fields = Path(job["workdir"].replace("HOST", str(index))), job["fields"]
    if job["kind"] == "toy":
        counting, seconds = toy.counting, job.get("seconds", 0.0)

        def slow(taken):
            for batch in counting(taken):
                time.sleep(seconds)
                yield batch

        toy.counting = slow
        state = toy.run(workdir, devices=None, **fields)
    elif job["kind"] == "encode":
        from phenaki.progress import Progress
        from phenaki.train import encode_dataset

        config, source = tiny.maskgit_config(), fields["source"]
        encoder = maskgit.open_encoder(config, job["tokenizer"], source, str(workdir), batch=4)
        encode_dataset.run(encoder, print, lambda total: Progress(total, "clips"))
        return
    elif job["kind"] == "cvivit":
        state = tokenizer.train(tiny.tokenizer_config(**fields), workdir)
    else:
        state = maskgit.train(tiny.maskgit_config(**fields), job["tokenizer"], workdir)
    if index == 0:
        leaf = jax.tree.leaves(state.params)[0]
        print(int(state.step), leaf.sharding.num_devices, flush=True)


if __name__ == "__main__":
    from phenaki import cli

    # They are not flags.
    arguments, sys.argv = sys.argv, sys.argv[:1]
    cli.run(lambda _: main(arguments))
