"""The variational autoencoder: model, bound, training."""

from jaxvae_md.vae.loss import elbo as elbo
from jaxvae_md.vae.model import VAE as VAE
from jaxvae_md.vae.model import vae as vae
from jaxvae_md.vae.reconstruction import ReconstructionReport as ReconstructionReport
from jaxvae_md.vae.reconstruction import active_dims as active_dims
from jaxvae_md.vae.reconstruction import pca_reconstruction as pca_reconstruction
from jaxvae_md.vae.reconstruction import reconstruction_r2 as reconstruction_r2
from jaxvae_md.vae.reconstruction import reconstruction_report as reconstruction_report
from jaxvae_md.vae.reconstruction import refine as refine
from jaxvae_md.vae.train import History as History
from jaxvae_md.vae.train import train as train
