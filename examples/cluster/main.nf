// A batch as a Nextflow workflow: 8 shards, then the page. Nextflow's work folders hold no results; `out` does.
//
//   nextflow run main.nf --pairs pairs.csv --out out

params.pairs = 'pairs.csv'
params.out = 'out'
params.shards = 8

pairs = file(params.pairs).toAbsolutePath()
out = file(params.out).toAbsolutePath()

// Exit status 1 says that pairs failed: PAGE tries them again, and has the last word.
process SHARD {
    cpus 4
    memory '16 GB'
    errorStrategy 'retry'
    maxRetries 2

    input:
    val number

    output:
    val number

    script:
    """
    corereg batch '${pairs}' -o '${out}' --jobs 2 --threads 2 --shard ${number}/${params.shards} || test \$? -eq 1
    """
}

process PAGE {
    cpus 4

    input:
    val shards

    script:
    """
    corereg batch '${pairs}' -o '${out}' --jobs 2 --threads 2
    """
}

workflow {
    SHARD(Channel.of(1..params.shards)) | collect | PAGE
}
