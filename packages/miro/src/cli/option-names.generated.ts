// Written by npm run generate:option-names from the options that the commands declare.
/**
 * The options of every command by their names in settings files: a file is checked by them without loading the commands
 * that its sections are for.
 */
export const OPTION_NAMES: Readonly<Record<string, readonly string[]>> = {
  "generate": ["model","variant","revision","text-encoder","text-encoder-dtype","vae","low-memory","device","dtype","quantize","threads","cache-dir","images","reward","negative-reward","steps","guidance","negative-prompt","guidance-type","guidance-window","image","strength","mask","variation-seed","variation-strength","sampler","eta","shift","batch-size","deterministic","seed","best-of","by","weights","hps-version","scorer-module","keep-all","prompts","from","output","name","format","quality","overwrite","resume","init-noise","save-latents","open","show","json","quiet"],
  "studio": ["host","port","model","output","queue","max-images","allow-origin","allow-frame","insecure","device","dtype","low-memory","quantize","cache-dir","threads","api-key-file","open","json","quiet"],
  "sweep": ["model","variant","revision","text-encoder","text-encoder-dtype","vae","low-memory","device","dtype","quantize","threads","cache-dir","x","y","reward","negative-reward","steps","guidance","negative-prompt","guidance-type","guidance-window","image","strength","mask","variation-seed","variation-strength","sampler","eta","shift","seed","images","best-of","by","weights","hps-version","scorer-module","distance","title","cell-size","output","open","show","overwrite","json","quiet"],
  "info": ["plot","sheet","skip-broken-shards","open","show","json","quiet"],
  "score": ["by","prompt","pairs","output","model","weights","hps-version","hps-letterbox","device","dtype","precision","cache-dir","scorer-module","threads","json","quiet"],
  "models": ["cache-dir","json","quiet"],
  "doctor": ["json","quiet"],
  "render": ["output","overwrite","json","quiet"],
  "preprocess": ["stage","src","csv-dir","dest","shard-id","shard-ids","shard-range","shard","shard-size","image-column","caption-column","synthetic-captions","synthetic","synthetic-text","scorers","weights","hps-version","hps-letterbox","precision","vae-256","vae-512","text-embeddings","model","text-encoder","vae","text-max-length","embeddings-npy-name","missing-scores","batch-size","device","dtype","threads","workers","max-pixels","exif-orientation","strict","skip-broken-shards","overwrite","cache-dir","scorer-module","json","quiet"],
  "index": ["absolute","check","bins","scores","synthetic-prob","score-mode","num-bins","strategy","refine-last-n-bins","refine-factor","distinct","max-samples","seed","text-embedding-name","skip-broken-shards","sizes","min-image-size","clip-filter-threshold","aesthetic-threshold","recipe","json","quiet"],
  "evaluate geneval": ["model","variant","revision","text-encoder","text-encoder-dtype","vae","low-memory","device","dtype","quantize","threads","cache-dir","checkpoint","images","prompts","metadata-file","long-prompts","outdir","outfile","n-samples","preset","reward","negative-reward","steps","guidance","negative-prompt","guidance-type","guidance-window","image","strength","mask","variation-seed","variation-strength","sampler","eta","shift","cfg","batched","batch-size","seed","tasks","prompt-range","only","detector","detector-dtype","resize-u8","clip","clip-dtype","options","failures","sweep","scorers","weights","overwrite","dry-run","judge","json","quiet"],
  "evaluate rewards": ["scorers","outfile","summary","absolute","weights","hps-version","hps-letterbox","device","dtype","precision","cache-dir","scorer-module","json","quiet"],
  "evaluate parti": ["outdir","n-samples","prompt-range","model","variant","revision","text-encoder","text-encoder-dtype","vae","low-memory","device","dtype","quantize","threads","cache-dir","reward","negative-reward","steps","guidance","negative-prompt","guidance-type","guidance-window","image","strength","mask","variation-seed","variation-strength","sampler","eta","shift","seed","batch-size","scorers","weights","hps-version","hps-letterbox","precision","scorer-module","overwrite","json","quiet"],
  "bench": ["batches","rounds","steps","guidance","model","variant","revision","text-encoder","text-encoder-dtype","vae","low-memory","device","dtype","quantize","threads","cache-dir","json","quiet"],
  "train": ["output","device","devices","resume","allow-changes","skip-broken-shards","scorer-module","keys","print","plan","dry-run","json","quiet"],
  "launch": ["output","partition","account","qos","constraint","mem","gpus-per-node","gres","time","signal-before","cpus-per-task","array","max-simultaneous","dependency","sbatch","prologue","network-interface","container","container-runtime","container-mount","stage-to","write","allow-changes","scorer-module","print","json","quiet"],
  "convert": ["output","to","ema","step","dtype","max-shard-size","uncond-embedding","overwrite","repo","variant","title","description","license","samples","prompt","seed","steps","text-encoder","vae","json","quiet"],
  "publish": ["variant","private","public","dry-run","json","quiet"],
  "card": ["repo","variant","title","description","license","samples","prompt","seed","steps","text-encoder","vae","json","quiet"],
  "testbed": ["model","text-encoder","embeddings-name","count","text-max-length","device","cache-dir","overwrite","threads","check","json","quiet"],
  "plot": ["output","keys","x","smooth","log","title","open","show","json","quiet"],
  "config": ["json","quiet"],
  "completion": ["json","quiet"],
};
