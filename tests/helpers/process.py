"""One process of a job of several processes: python process.py PORT COUNT INDEX JSON."""

import json
import sys
import time

import jax

jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_cpu_collectives_implementation", "gloo")


def meshes(workdir, stage1, shapes, order, steps):
    """Trains both stages, without samples, and samples from random weights, on each mesh.

    `shapes` are (data, fsdp, sequence, tensor); `order` is that of the devices on all of them.
    """
    import numpy as np
    import tiny

    from phenaki import sharding
    from phenaki.pipeline import Phenaki
    from phenaki.train import loop, maskgit, tokenizer

    run = loop.run
    loop.run = lambda *arguments, sample, **options: run(*arguments, **options)
    devices = [jax.devices()[index] for index in order]
    for shape in shapes:
        mesh = dict(zip(("data", "fsdp", "sequence", "tensor"), shape, strict=True))
        fields = dict(
            mesh=mesh, train=dict(steps=steps, save_every=steps), data=dict(image_batch=4)
        )
        name = "x".join(map(str, shape))
        tokenizer.train(tiny.tokenizer_config(**fields), workdir / f"cvivit_{name}", devices)
        maskgit.train(tiny.maskgit_config(**fields), stage1, workdir / f"maskgit_{name}", devices)
        model = Phenaki(tiny.phenaki().config, tiny.phenaki().params)
        model.shard(sharding.make_mesh(**mesh, devices=devices))
        sample = model.sample(["a red circle moves left", "a blue square"] * 2, seed=3)
        if jax.process_index() == 0:
            np.savez(workdir / f"sample_{name}.npz", tokens=sample.tokens, video=sample.video)


def main(argv):
    port, count, index, job = int(argv[1]), int(argv[2]), int(argv[3]), json.loads(argv[4])
    from phenaki import sharding

    if count > 1:
        sharding.start(f"localhost:{port}", count, index)
    import tiny
    import toy

    from phenaki.io import paths
    from phenaki.train import maskgit, tokenizer

    workdir, fields = paths.path(job["workdir"].replace("HOST", str(index))), job["fields"]
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
    elif job["kind"] == "own":
        import numpy as np

        sample = tiny.phenaki().sample([f"square {index}"], seed=index)
        np.savez(workdir / f"{index}.npz", tokens=sample.tokens, video=sample.video)
        return
    elif job["kind"] == "meshes":
        meshes(workdir, job["tokenizer"], **fields)
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
